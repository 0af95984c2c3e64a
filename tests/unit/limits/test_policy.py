"""What is charged for a request, what a client is told, and one exchange from inside with limits of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pydantic
import pytest

from extproc.config.policy import PolicyMode
from extproc.dialects.answer import Delta, Done, Usage
from extproc.exchange.messages import (
    BodyReply,
    Event,
    HeadersReply,
    ImmediateReply,
    Reply,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)
from extproc.limits import Limit, State
from extproc.policies.limit_answers import duration, headers, refusal
from extproc.policies.limit_expected import ExpectedOutput
from extproc.policies.limit_hold import Hold
from extproc.policies.limit_rules import Rules, Size, charges, fitting_output, settled
from extproc.policies.limit_settings import Settings
from extproc.policies.pipeline import SETTINGS
from extproc.principal import Principal
from tests.helpers.journeys import KEY, Inside

FREE = Principal("key-1", "blue", "free", frozenset({"*"}))
SIZE = Size(100, 50)


def limits_of(principal: Principal, model: str = "m", **settings: Any) -> dict[str, int]:
    return {one.limit.name: one.limit.amount for one in Rules(Settings(**settings)).applied(principal, model)}


class TestRules:
    def test_the_tiers_as_promised(self) -> None:
        expected = {"free": (10, 10_000, 100_000), "basic": (100, 100_000, 10**6), "pro": (500, 500_000, 5 * 10**6)}
        for tier, amounts in expected.items():
            assert tuple(limits_of(Principal("k", "t", tier, frozenset())).values()) == amounts
        assert limits_of(Principal("k", "t", "enterprise", frozenset())) == {}

    def test_a_tier_is_overridden_key_by_key_and_number_by_number(self) -> None:
        given = {"tiers": {"free": {"requests_per_minute": 20}}, "keys": {"key-1": {"tokens_per_day": None}}}
        assert limits_of(FREE, **given) == {"tier:requests_per_minute": 20, "tier:tokens_per_minute": 10_000}

    @pytest.mark.parametrize(
        ("scope", "subject"),
        [
            ("key", "key-1"),
            ("team", "blue"),
            ("tier", "free"),
            ("model", "m"),
            ("key_model", "key-1|m"),
            ("global", "all"),
        ],
    )
    def test_scopes(self, scope: str, subject: str) -> None:
        extra = {"scope": scope, "measure": "tokens", "amount": 5}
        own = Settings.model_validate_json(orjson.dumps({"limits": {"x": extra}}))
        (found,) = [one for one in Rules(own).applied(FREE, "m") if one.limit.name == "x"]
        assert found.key == f"{{extproc}}:x:tokens-bucket:{subject}"

    def test_filters_and_what_needs_a_model(self) -> None:
        extras = {
            "a": {"scope": "key", "measure": "requests", "amount": 5, "models": ["m"]},
            "b": {"scope": "key", "measure": "requests", "amount": 5, "teams": ["red"]},
            "c": {"scope": "model", "measure": "requests", "amount": 5},
        }
        rules = Rules(Settings.model_validate_json(orjson.dumps({"limits": extras})))
        assert {one.limit.name for one in rules.applied(FREE, "m")} >= {"a", "c"}
        assert {one.limit.name for one in rules.applied(FREE, "")} & {"a", "b", "c"} == set()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"limits": {"x": {"scope": "key", "measure": "money", "amount": 5}}},
            {"limits": {"x": {"scope": "key", "measure": "tokens", "amount": (1 << 51) + 1}}},
            {"budgets": {"x": {"scope": "key", "amount": "0"}}},
            {"budgets": {"x": {"scope": "key", "amount": "5000000"}}},
            {"budgets": {"x": {"scope": "key", "amount": "-1"}}},
        ],
    )
    def test_what_can_not_be_counted_is_refused(self, wrong: Any) -> None:
        with pytest.raises(pydantic.ValidationError):
            Settings.model_validate_json(orjson.dumps(wrong))

    def test_costs(self) -> None:
        applied = Rules(Settings(keys={"key-1": {"concurrent_requests": 2}})).applied(FREE, "m")  # type: ignore[dict-item]
        assert [charge.cost for charge in charges(applied, SIZE)] == [1, 150, 150, 1]
        assert [settled(one.limit.measure, Size(100, 7)) for one in applied] == [1, 107, 107, 0]
        assert [settled(one.limit.measure, None) for one in applied] == [1, 0, 0, 0]

    def test_the_expected_answer_is_bounded_by_the_limit(self) -> None:
        applied = Rules(Settings()).applied(FREE, "m")
        assert fitting_output(applied, Size(1_000, 8_000), 1) == 4_500
        assert fitting_output(applied, Size(9_999, 8_000), 1) == 1
        too_much = fitting_output(applied, Size(10_000, 8_000), 1)
        assert isinstance(too_much, Limit)
        assert too_much.amount == 10_000


class TestExpected:
    def test_the_cap_until_enough_is_known_and_never_more(self) -> None:
        expected = ExpectedOutput()
        assert expected.expect("k", "m", 1000) == 1000
        for tokens in range(10, 110, 10):
            expected.learn("k", "m", tokens)
        assert expected.expect("k", "m", 1000) == 100
        assert expected.expect("k", "m", 30) == 30
        assert expected.expect("k", "other", 1000) == 1000


class TestAnswers:
    @pytest.mark.parametrize(
        ("ms", "text"),
        [(0, "0ms"), (12, "12ms"), (1000, "1s"), (1001, "2s"), (360_000, "6m0s"), (86_399_001, "24h0m0s")],
    )
    def test_durations(self, ms: int, text: str) -> None:
        assert duration(ms) == text

    def test_the_tightest_limit_speaks(self) -> None:
        applied = Rules(Settings()).applied(FREE, "m")
        told = [(one.limit, State(left, 500)) for one, left in zip(applied, (3, 900, 40), strict=True)]
        assert dict(headers(told)) == {
            "x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": "3",
            "x-ratelimit-reset-requests": "500ms", "x-ratelimit-limit-tokens": "100000",
            "x-ratelimit-remaining-tokens": "40", "x-ratelimit-reset-tokens": "500ms",
        }  # fmt: skip

    @pytest.mark.parametrize(("retry_ms", "told_s"), [(1, 1), (1001, 2), (500_000, 120), (-1, 120)])
    def test_retry_after(self, retry_ms: int, told_s: int) -> None:
        applied = Rules(Settings()).applied(FREE, "m")
        rejection = refusal([(applied[0].limit, State(0, 1, 7))], retry_ms)
        assert (rejection.status, rejection.code, rejection.retry_after_s) == (429, "rate_limit_exceeded", told_s)


class TestHold:
    def hold(self, reserved: int = 10, cap: int = 100, choices: int = 1) -> Hold:
        applied = Rules(Settings()).applied(FREE, "m")
        return Hold(True, applied, Size(5, reserved), cap, choices)

    def test_a_stream_draws_more_when_it_outruns_what_is_reserved(self) -> None:
        held = self.hold()
        held.watch([Delta(text="x")] * 10)
        assert not held.outrun
        held.watch([Delta(text="x")])
        assert held.outrun
        assert held.next_size().output_tokens == 74
        assert held.more(held.next_size()) == [0, 64, 64]

    def test_long_pieces_are_many_tokens_and_usage_is_believed(self) -> None:
        held = self.hold()
        held.watch([Delta(text="x" * 400)])
        assert held.used_tokens == 100
        held.watch([Usage(None, 300)])
        assert held.next_size().output_tokens == 300

    def test_an_answer_that_has_ended_draws_nothing(self) -> None:
        held = self.hold(choices=2)
        held.watch([*[Delta(text="x")] * 20, Delta(index=1, finish_reason="stop")])
        assert held.outrun
        assert held.unfinished == {0}
        held.watch([Delta(finish_reason="stop")])
        assert not held.outrun
        ended = self.hold()
        ended.watch([*[Delta(text="x")] * 20, Done()])
        assert not ended.outrun


HEADERS = {":method": "POST", ":path": "/v1/chat/completions", "authorization": f"Bearer {KEY}"}
CHUNK = (
    b'data: {"id":"u","object":"chat.completion.chunk","created":1,"model":"up","choices":[{"index":0,"delta":'
    b'{"content":"word "},"logprobs":null,"finish_reason":null}]}\n\n'
)


class TestExchange:
    number = 0

    def inside(self, directory: Path, **policy: Any) -> Inside:
        settings = SETTINGS["limit"].model_validate_json(orjson.dumps(policy))
        return Inside(directory, {"limit": settings})

    def events(self, chunks: int = 0, **more: Any) -> list[Event]:
        TestExchange.number += 1
        body = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}], **more}
        head = RequestHeaders({**HEADERS, "x-request-id": f"id-{self.number}"})
        events: list[Event] = [head, RequestBody(orjson.dumps(body), last=True)]
        if chunks:
            events.append(ResponseHeaders({":status": "200", "content-type": "text/event-stream"}))
            events += [ResponseBody(CHUNK) for _ in range(chunks)]
        return events

    async def test_the_head_turns_away_who_has_no_request_left(self, tmp_path: Path) -> None:
        inside = self.inside(tmp_path, tiers={"pro": {"requests_per_minute": 1}})
        await inside.exchange(self.events())
        refusals: list[Reply] = []
        for _ in range(2):
            refusals += await inside.exchange(self.events())
        for reply in refusals:
            assert isinstance(reply, ImmediateReply)
            assert reply.status == 429
            told = dict(reply.headers)
            assert 1 <= int(told["retry-after"]) <= 60
            assert told["x-ratelimit-remaining-requests"] == "0"
        assert inside.metric("extproc_limit_exceeded_total", limit="tier:requests_per_minute", mode="enforce") == 1

    async def test_a_stream_is_cut_in_its_first_batch_or_later(self, tmp_path: Path) -> None:
        for chunks_at_once in (1, 90):
            inside = self.inside(tmp_path, keys={"inside": {"tokens_per_minute": 60}})
            head = ResponseHeaders({":status": "200", "content-type": "text/event-stream"})
            stream = [ResponseBody(CHUNK * chunks_at_once) for _ in range(90 // chunks_at_once)]
            events = [*self.events(stream=True), head, *stream]
            replies = await inside.exchange(events)
            body = b"".join(r.data for r in replies if isinstance(r, BodyReply) and not r.of_request)
            assert body.endswith(b"data: [DONE]\n\n")
            assert body.count(b'"finish_reason":"length"') == 1
            assert isinstance(replies[-1], BodyReply)
            assert replies[-1].last
            (event,) = inside.usage.events
            assert (event["termination"], event["reason"]) == ("COMPLETED", "limit_reached")
            assert event["completion_tokens"] > 0

    async def test_in_shadow_nothing_is_refused_cut_or_told(self, tmp_path: Path) -> None:
        tiny = {"requests_per_minute": 1, "tokens_per_minute": 60}
        inside = self.inside(tmp_path, mode=PolicyMode.SHADOW, keys={"inside": tiny})
        for _ in range(3):
            replies = await inside.exchange(self.events(90, stream=True))
            heads = [dict(r.set_headers) for r in replies if isinstance(r, HeadersReply) and not r.of_request]
            assert not [name for head in heads for name in head if name.startswith("x-ratelimit")]
            body = b"".join(r.data for r in replies if isinstance(r, BodyReply) and not r.of_request)
            assert body.count(b"word ") == 90

    async def test_the_largest_cap_is_what_is_reserved(self, tmp_path: Path) -> None:
        inside = self.inside(tmp_path, keys={"inside": {"tokens_per_minute": 400}})
        replies = await inside.exchange(self.events(1, stream=True, max_tokens=1, max_completion_tokens=90))
        (head,) = [r for r in replies if isinstance(r, HeadersReply) and not r.of_request]
        assert int(dict(head.set_headers)["x-ratelimit-remaining-tokens"]) <= 400 - 90
