"""The micro-batcher's laws, on a real thread with a scripted engine: what it is given decides when it goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from prometheus_client import CollectorRegistry

from extproc.clock import Clock
from extproc.inference.batcher import Batcher
from extproc.inference.failure import EncoderError, Reason
from extproc.inference.interface import Encoding
from extproc.inference.padding import width_of
from extproc.inference.tokens import Tokens
from extproc.telemetry.encoder_metrics import EncoderMetrics

PATIENCE_S = 10.0


class Scripted:
    """As many tokens as a text has characters; the result is the text. `gate` holds the thread within a batch."""

    max_batch_tokens = 64

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.error: BaseException | None = None
        self.took_s = 0.0
        self.now_s = 100.0

    def tokenize(self, texts: Sequence[str]) -> Sequence[Tokens]:
        if "untokenisable" in texts:
            raise RuntimeError("no")
        return [Tokens([ord(letter) for letter in text], [], []) for text in texts]

    def run(self, batch: Sequence[Tokens]) -> Sequence[Encoding]:
        self.batches.append([len(tokens.ids) for tokens in batch])
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        self.now_s += self.took_s
        if self.error is not None:
            raise self.error
        return [Encoding("".join(map(chr, tokens.ids)).encode()) for tokens in batch]

    async def busy(self) -> None:
        """Until the thread is within a batch."""
        assert await asyncio.to_thread(self.entered.wait, PATIENCE_S)
        self.entered.clear()


Make = Callable[..., Batcher]


class Rig:
    def __init__(self) -> None:
        self.engine = Scripted()
        self.registry = CollectorRegistry()
        self.batchers: list[Batcher] = []

    def batcher(self, max_waiting: int = 100, load: Callable[[], Scripted] | None = None) -> Batcher:
        clock = Clock(monotonic=lambda: self.engine.now_s)
        made = Batcher(load or (lambda: self.engine), max_waiting, EncoderMetrics(self.registry), clock)
        self.batchers.append(made)
        return made

    def failures(self, reason: Reason) -> float:
        return self.registry.get_sample_value("extproc_encoder_failures_total", {"reason": reason}) or 0.0

    def waiting(self) -> float | None:
        return self.registry.get_sample_value("extproc_encoder_waiting")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    made.engine.gate.set()
    for batcher in made.batchers:
        await batcher.close()
    assert made.waiting() == 0


def soon(work: Awaitable[Sequence[Encoding]]) -> asyncio.Future[Sequence[Encoding]]:
    return asyncio.ensure_future(work)


async def test_results_come_in_the_order_of_the_texts(rig: Rig) -> None:
    texts = ["a" * 60, "b", "c" * 30, "d" * 2]
    encodings = await rig.batcher().encode(texts, PATIENCE_S)
    assert [encoding.embedding.decode() for encoding in encodings] == texts


async def test_nothing_costs_nothing(rig: Rig) -> None:
    assert await rig.batcher().encode([], PATIENCE_S) == ()
    assert rig.engine.batches == []


async def test_what_waits_is_computed_together_with_its_like(rig: Rig) -> None:
    batcher, engine = rig.batcher(), rig.engine
    engine.gate.clear()
    first = soon(batcher.encode(["x" * 40], PATIENCE_S))
    await engine.busy()
    others = [soon(batcher.encode(["y" * length], PATIENCE_S)) for length in (3, 40, 5, 7, 9, 11)]
    await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(first, *others)
    assert engine.batches == [[40], [3, 5, 7, 9], [40], [11]]  # 64 tokens a batch, at most


async def test_the_most_urgent_is_first(rig: Rig) -> None:
    batcher, engine = rig.batcher(), rig.engine
    engine.gate.clear()
    first = soon(batcher.encode(["x"], PATIENCE_S))
    await engine.busy()
    patient = soon(batcher.encode(["y" * 64], PATIENCE_S + 1))
    urgent = soon(batcher.encode(["z" * 40], PATIENCE_S - 1))
    await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(first, patient, urgent)
    assert engine.batches == [[1], [40], [64]]


async def test_overload_fails_at_once_and_is_counted(rig: Rig) -> None:
    batcher, engine = rig.batcher(max_waiting=3), rig.engine
    engine.gate.clear()
    first = soon(batcher.encode(["x"], PATIENCE_S))
    await engine.busy()
    fits = soon(batcher.encode(["a", "b"], PATIENCE_S))
    await asyncio.sleep(0)
    with pytest.raises(EncoderError, match="3 texts wait") as caught:
        await batcher.encode(["c"], PATIENCE_S)
    assert caught.value.reason is Reason.OVERLOADED
    assert rig.failures(Reason.OVERLOADED) == 1
    assert rig.waiting() == 3
    engine.gate.set()
    await asyncio.gather(first, fits)


async def test_what_can_not_be_in_time_is_not_computed(rig: Rig) -> None:
    batcher, engine = rig.batcher(), rig.engine
    engine.took_s = 10.0  # for 16 tokens, padding included
    await batcher.encode(["x"], PATIENCE_S)
    engine.entered.clear()
    engine.gate.clear()
    first = soon(batcher.encode(["x"], PATIENCE_S))
    await engine.busy()
    hopeless = soon(batcher.encode(["y" * 64], 30.0))  # 40 s of work
    fits = soon(batcher.encode(["z" * 32], 40.0))  # 20 s of work, 10 s behind the first
    await asyncio.sleep(0)
    engine.gate.set()
    with pytest.raises(EncoderError, match="in time") as caught:
        await hopeless
    assert caught.value.reason is Reason.DEADLINE
    await asyncio.gather(first, fits)
    assert engine.batches == [[1], [1], [32]]
    assert rig.failures(Reason.DEADLINE) == 1


async def test_a_call_that_can_not_be_whole_in_time_is_not_begun(rig: Rig) -> None:
    batcher, engine = rig.batcher(), rig.engine
    engine.took_s = 10.0
    await batcher.encode(["x"], PATIENCE_S)
    with pytest.raises(EncoderError, match="in time"):
        await batcher.encode(["y" * 64, "z" * 64], 50.0)  # 40 s each
    assert engine.batches == [[1]]


async def test_one_slow_batch_does_not_condemn_those_after_it(rig: Rig) -> None:
    batcher, engine = rig.batcher(), rig.engine
    engine.took_s = 5000.0
    await batcher.encode(["x"], PATIENCE_S)
    engine.took_s = 0.0
    with pytest.raises(EncoderError, match="in time"):
        await batcher.encode(["x"], 50.0)
    engine.now_s += 2.0
    await batcher.encode(["x"], 50.0)


async def test_a_deadline_that_has_passed_fails_without_a_pass(rig: Rig) -> None:
    with pytest.raises(EncoderError, match="no time"):
        await rig.batcher().encode(["x"], 0.0)
    assert rig.engine.batches == []


async def test_the_deadline_passes_while_it_waits(rig: Rig) -> None:
    batcher, engine = rig.batcher(), rig.engine
    engine.gate.clear()
    first = soon(batcher.encode(["x"], PATIENCE_S))
    await engine.busy()
    with pytest.raises(EncoderError, match="too long"):
        await batcher.encode(["late"], 0.02)
    engine.gate.set()
    await first
    await batcher.encode(["after"], PATIENCE_S)
    assert engine.batches == [[1], [5]]


async def test_what_is_cancelled_while_it_waits_is_dropped(rig: Rig) -> None:
    batcher, engine = rig.batcher(), rig.engine
    engine.gate.clear()
    first = soon(batcher.encode(["x"], PATIENCE_S))
    await engine.busy()
    dropped = soon(batcher.encode(["dropped"] * 5, PATIENCE_S))
    await asyncio.sleep(0)
    dropped.cancel()
    await asyncio.sleep(0)
    engine.gate.set()
    await first
    await batcher.encode(["after"], PATIENCE_S)
    assert dropped.cancelled()
    assert engine.batches == [[1], [5]]


async def test_what_is_cancelled_within_a_batch_harms_nobody(rig: Rig) -> None:
    batcher, engine = rig.batcher(), rig.engine
    engine.gate.clear()
    first = soon(batcher.encode(["x"], PATIENCE_S))
    await engine.busy()
    first.cancel()
    await asyncio.sleep(0)
    engine.gate.set()
    assert (await batcher.encode(["after"], PATIENCE_S))[0].embedding == b"after"


async def test_a_failing_model_fails_its_batch_and_goes_on(rig: Rig) -> None:
    batcher, engine = rig.batcher(), rig.engine
    engine.error = RuntimeError("CUDA error: the secret prompt")
    with pytest.raises(EncoderError) as caught:
        await batcher.encode(["x" * 64, "y" * 64], PATIENCE_S)
    assert caught.value.reason is Reason.FAILED
    assert "secret" not in str(caught.value)
    engine.error = None
    await batcher.encode(["after"], PATIENCE_S)
    assert engine.batches == [[64], [5]]  # the second text of the failed call was not computed


async def test_a_text_that_can_not_be_tokenised_fails_alone(rig: Rig) -> None:
    batcher = rig.batcher()
    bad, good = await asyncio.gather(
        batcher.encode(["untokenisable"], PATIENCE_S), batcher.encode(["good"], PATIENCE_S), return_exceptions=True
    )
    assert isinstance(bad, EncoderError)
    assert not isinstance(good, BaseException)


async def test_a_bug_in_the_thread_fails_who_waits_and_it_goes_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = rig.batcher()
    await batcher.ready()
    with monkeypatch.context() as patched:
        patched.setattr(batcher, "_choose", lambda max_tokens: 1 / 0)
        with pytest.raises(EncoderError, match="batcher failed") as caught:
            await batcher.encode(["x"], PATIENCE_S)
    assert caught.value.reason is Reason.FAILED
    await batcher.encode(["after"], PATIENCE_S)


async def test_texts_wait_for_the_engine_to_be_loaded(rig: Rig) -> None:
    loaded = threading.Event()

    def load() -> Scripted:
        assert loaded.wait(PATIENCE_S)
        return rig.engine

    batcher = rig.batcher(load=load)
    waiting = soon(batcher.encode(["x"], PATIENCE_S))
    await asyncio.sleep(0)
    assert not waiting.done()
    loaded.set()
    await batcher.ready()
    await waiting


async def test_an_engine_that_can_not_be_loaded_is_told_to_all(rig: Rig) -> None:
    def load() -> Scripted:
        raise ValueError("no model there")

    batcher = rig.batcher(load=load)
    with pytest.raises(EncoderError, match="no model there"):
        await batcher.ready()
    with pytest.raises(EncoderError) as caught:
        await batcher.encode(["x"], PATIENCE_S)
    assert caught.value.reason is Reason.UNAVAILABLE


async def test_closing_while_busy_fails_who_waits_and_lets_the_batch_end(rig: Rig) -> None:
    batcher, engine = rig.batcher(), rig.engine
    engine.gate.clear()
    running = soon(batcher.encode(["x"], PATIENCE_S))
    await engine.busy()
    waiting = soon(batcher.encode(["y" * 64], PATIENCE_S))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(EncoderError, match="closed"):
        await batcher.encode(["z"], PATIENCE_S)
    engine.gate.set()
    await closing
    assert (await running)[0].embedding == b"x"
    with pytest.raises(EncoderError, match="closed"):
        await waiting
    assert engine.batches == [[1]]


async def test_closing_twice_is_closing_once(rig: Rig) -> None:
    batcher = rig.batcher()
    await batcher.close()
    await batcher.close()


@pytest.mark.parametrize("tokens", [1, 16, 17, 100, 511, 512])
def test_at_most_a_third_of_a_batch_is_padding(tokens: int) -> None:
    width = width_of(tokens)
    assert tokens <= width
    assert tokens > 16 * 2 / 3 or width == 16
    assert width == 16 or tokens / width > 2 / 3 - 0.01
