"""The demo model's logic without Triton: text, counts, stop sequences, directives, cache, queue."""

import asyncio
import itertools
from typing import Any

import pytest
from rs_bpe.bpe import openai

from tests.helpers.triton import model_module

composer = model_module("demo_llm", "composer")
detokenizer = model_module("demo_llm", "detokenizer")
directives = model_module("demo_llm", "directives")
kv_cache = model_module("demo_llm", "kv_cache")
sampling = model_module("demo_llm", "sampling")
engine = model_module("demo_llm", "engine")

TOKENIZER = openai.cl100k_base()
PROMPTS = [f"Question number {number}, naïvely asked" for number in range(40)]


def stream(token_ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """Deltas as a client would see them, and whether a stop sequence ended the text."""
    one = detokenizer.Detokenizer(TOKENIZER.decode, stop)
    deltas = []
    for token_id in token_ids:
        deltas.append(one.feed(token_id))
        if one.stopped:
            return deltas, True
    return [*deltas, one.flush()], False


class TestComposer:
    def test_same_prompt_same_text(self) -> None:
        first, second = (composer.compose(TOKENIZER, "hello", 7, 500, None) for _ in range(2))
        assert first == second
        assert first.token_ids != composer.compose(TOKENIZER, "hello", 8, 500, None).token_ids
        assert first.token_ids != composer.compose(TOKENIZER, "hallo", 7, 500, None).token_ids

    @pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 13, 21, 34, 55, 1000])
    def test_text_counts_as_many_tokens_as_reported(self, limit: int) -> None:
        for prompt in PROMPTS:
            answer = composer.compose(TOKENIZER, prompt, None, limit, None)
            text = TOKENIZER.decode(answer.token_ids)
            assert TOKENIZER.count(text) == len(answer.token_ids) <= limit
            assert answer.finish_reason == ("length" if len(answer.token_ids) == limit else "stop")

    def test_natural_lengths_vary(self) -> None:
        lengths = {len(composer.compose(TOKENIZER, prompt, None, 1000, None).token_ids) for prompt in PROMPTS}
        assert len(lengths) > 20
        assert min(lengths) >= 24

    @pytest.mark.parametrize("length", [0, 1, 7, 200, 1500])
    def test_exact_length(self, length: int) -> None:
        answer = composer.compose(TOKENIZER, "x", None, 2000, length)
        assert (len(answer.token_ids), answer.finish_reason) == (length, "stop")
        assert TOKENIZER.count(TOKENIZER.decode(answer.token_ids)) == length

    def test_exact_length_beyond_the_limit_is_cut(self) -> None:
        answer = composer.compose(TOKENIZER, "x", None, 10, 10**9)
        assert (len(answer.token_ids), answer.finish_reason) == (10, "length")

    def test_repeats(self) -> None:
        answer = composer.repeat(TOKENIZER, "日本語 👍🏽 twice", 100)
        assert TOKENIZER.decode(answer.token_ids) == "日本語 👍🏽 twice"


class TestDetokenizer:
    def test_never_splits_a_character(self) -> None:
        text = "a 👍🏽👩‍👩‍👧‍👦 naïve 日本語 𠮷 🍵"
        deltas, stopped = stream(TOKENIZER.encode(text))
        assert "".join(deltas) == text
        assert "" in deltas
        assert not any("\ufffd" in delta for delta in deltas)
        assert not stopped

    @pytest.mark.parametrize("stop", ["\n\n", "END", "aab", "cache tr", " 🙂", "."])
    def test_stop_sequence_never_shows(self, stop: str) -> None:
        text = f"before aaa 日本{stop} after {stop} again"
        deltas, stopped = stream(TOKENIZER.encode(text), (stop,))
        assert stopped
        assert "".join(deltas) == text[: text.index(stop)]

    def test_beginning_of_a_stop_sequence_is_given_back(self) -> None:
        deltas, stopped = stream(TOKENIZER.encode("ends with EN"), ("END",))
        assert "".join(deltas) == "ends with EN"
        assert not stopped

    def test_earliest_of_several_wins(self) -> None:
        deltas, _ = stream(TOKENIZER.encode("one two three"), ("three", "two"))
        assert "".join(deltas) == "one "


class TestDirectives:
    def test_only_the_last_user_turn_counts(self) -> None:
        prompt = (
            "<|im_start|>user\n[[demo:error-before]]<|im_end|>\n<|im_start|>assistant\nok<|im_end|>\n"
            "<|im_start|>user\n hi [[demo:echo]] there [[demo:tpot_ms=2.5]]<|im_end|>\n<|im_start|>assistant\n"
        )
        found = directives.parse(prompt)
        assert not found.error_before
        assert found.echo == "hi  there"
        assert found.tpot_ms == 2.5

    def test_plain_prompt_is_one_turn(self) -> None:
        found = directives.parse(
            "a [[demo:error-after=3]] b [[demo:crash-after=4]] [[demo:tokens=5]] [[demo:ttft_ms=6]]"
        )
        assert (found.error_after, found.crash_after, found.tokens, found.ttft_ms) == (3, 4, 5, 6.0)

    @pytest.mark.parametrize("text", ["[[demo:tokens]]", "[[demo:tokens=1.5]]", "[[demo:tpot_ms=1.2.3]]", "[[demo:?]]"])
    def test_nonsense_is_text(self, text: str) -> None:
        assert directives.parse(text) == directives.Directives()


class TestSampling:
    def test_defaults(self) -> None:
        assert sampling.parse("{}", 99) == sampling.Sampling(99, 0, (), ignore_eos=False)

    def test_all(self) -> None:
        given = '{"max_tokens":"5","temperature":0,"seed":3,"stop":"a","ignore_eos":true,"top_k":7}'
        assert sampling.parse(given, 99) == sampling.Sampling(5, None, ("a",), ignore_eos=True)

    @pytest.mark.parametrize(
        "document",
        [
            "", "[]", '{"max_tokens":0}', '{"max_tokens":1.5}', '{"max_tokens":true}', '{"max_tokens":"x"}',
            '{"max_tokens":1e999}', '{"temperature":-1}', '{"temperature":NaN}', '{"top_p":0}', '{"top_p":2}',
            '{"n":2}', '{"stop":""}', '{"stop":[1]}', '{"stop":{}}', '{"ignore_eos":1}', '{"seed":[]}',
        ],
    )  # fmt: skip
    def test_refused(self, document: str) -> None:
        with pytest.raises(sampling.BadParameter):
            sampling.parse(document, 99)


class TestKvCache:
    def test_whole_blocks_of_a_shared_beginning(self) -> None:
        cache = kv_cache.KvCache(100)
        cache.remember(list(range(40)))
        assert cache.cached_tokens(list(range(40))) == 32
        assert cache.cached_tokens([*range(20), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) == 16
        assert cache.cached_tokens([9, *range(1, 40)]) == 0

    def test_last_prompt_token_always_runs(self) -> None:
        cache = kv_cache.KvCache(100)
        cache.remember(list(range(32)))
        assert cache.cached_tokens(list(range(32))) == 16

    def test_evicts_the_longest_unused(self) -> None:
        cache = kv_cache.KvCache(2)
        for start in (0, 100, 0, 200):
            cache.remember(list(range(start, start + 16)))
        warm = {start: cache.cached_tokens([*range(start, start + 16), 1]) for start in (0, 100, 200)}
        assert warm == {0: 16, 100: 0, 200: 16}

    def test_holds_up_to_its_capacity(self) -> None:
        cache = kv_cache.KvCache(4)
        assert cache.try_hold(33)
        assert not cache.try_hold(17)
        assert cache.utilization == 0.75
        cache.release(33)
        assert cache.try_hold(64)
        assert not cache.could_ever_hold(65)


class Caller:
    """A listener that records, and goes away when told to."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.queue_depth: int | None = None
        self.is_gone = False
        self.times_done = 0

    def started(self, cached_tokens: int, queue_depth: int) -> None:
        self.queue_depth = queue_depth

    def token(self, index: int, token_id: int) -> bool:
        assert index == len(self.tokens)
        self.tokens.append(token_id)
        return True

    def done(self) -> None:
        self.times_done += 1

    def is_cancelled(self) -> bool:
        return self.is_gone


class TestEngine:
    def setup_method(self) -> None:
        self.loads: list[Any] = []
        self.engine = engine.Engine(kv_cache.KvCache(64), 2, self.loads.append)

    def sequence(self, tokens: int, tpot_ms: float = 0.0) -> Any:
        pace = engine.Pace(ttft_ms=1.0, ttft_us_per_uncached_token=0.0, tpot_ms=tpot_ms, jitter=0.0)
        return engine.Sequence([1, 2, 3], list(range(tokens)), pace, composer.generator("x", None))

    async def test_runs_all_and_returns_to_zero(self) -> None:
        callers = [Caller() for _ in range(6)]
        for caller in callers:
            self.engine.submit(self.sequence(5), caller)
        await self.until(lambda: all(caller.times_done for caller in callers))
        assert [caller.tokens for caller in callers] == [list(range(5))] * 6
        assert [caller.queue_depth for caller in callers] == [0, 0, 0, 1, 2, 3]
        assert max(load.running for load in self.loads) == 2
        assert max(load.queued for load in self.loads) == 4
        assert self.loads[-1] == engine.Load(0, 0, 0.0)
        assert {caller.times_done for caller in callers} == {1}

    async def test_cancellation_frees_running_and_queued_places(self) -> None:
        running, queued = [Caller(), Caller()], [Caller(), Caller()]
        watcher = asyncio.create_task(self.engine.watch_cancellations())
        for caller in running + queued:
            self.engine.submit(self.sequence(500, tpot_ms=20.0), caller)
        await self.until(lambda: all(caller.tokens for caller in running))
        queued[0].is_gone = True
        await self.until(lambda: queued[0].times_done == 1)
        assert queued[0].tokens == []
        running[0].is_gone = True
        await self.until(lambda: bool(queued[1].tokens))
        for caller in running + queued:
            caller.is_gone = True
        await self.until(lambda: self.loads[-1] == engine.Load(0, 0, 0.0))
        assert [caller.times_done for caller in running + queued] == [1, 1, 1, 1]
        watcher.cancel()

    async def test_waits_for_room_in_the_cache(self) -> None:
        first, second = Caller(), Caller()
        self.engine.submit(self.sequence(600), first)
        self.engine.submit(self.sequence(600), second)
        await self.until(lambda: bool(second.times_done))
        assert max(load.running for load in self.loads) == 1
        assert max(load.kv_cache_utilization for load in self.loads) == 38 / 64

    async def until(self, condition: Any) -> None:
        for _ in itertools.repeat(None, 500):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("never came true")
