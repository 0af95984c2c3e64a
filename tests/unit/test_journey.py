"""One exchange from inside: what goes to the pool, what comes back, and that it is accounted for once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.config.policy import PolicyMode, PolicySettings
from extproc.errors import ProtocolError
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
from tests.helpers.journeys import KEY, Inside

HEADERS = {":method": "POST", ":path": "/v1/chat/completions", "authorization": f"Bearer {KEY}", "x-request-id": "r-1"}
CHUNK = (
    b'data: {"id":"u","object":"chat.completion.chunk","created":1,"model":"up","choices":[{"index":0,"delta":'
    b'{"content":"%s"},"logprobs":null,"finish_reason":%s}]}\n\n'
)
STREAM = CHUNK % (b"Hello", b"null") + CHUNK % (b" world \xf0\x9f\x8c\x8d", b'"stop"') + b"data: [DONE]\n\n"
WHOLE = orjson.dumps(
    {
        "id": "u", "object": "chat.completion", "created": 1, "model": "up",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    }
)  # fmt: skip


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path)


def chat(model: str = "talker", **more: Any) -> bytes:
    return orjson.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}], **more})


def request(body: bytes, **headers: str) -> list[Event]:
    return [RequestHeaders({**HEADERS, **headers}), RequestBody(body), RequestBody(b"", last=True)]


def response(*pieces: bytes, status: int = 200, kind: str = "application/json") -> list[Event]:
    head = ResponseHeaders({":status": str(status), "content-type": kind})
    return [head, *(ResponseBody(piece) for piece in pieces), ResponseBody(b"", last=True)]


def sse(*pieces: bytes) -> list[Event]:
    return response(*pieces, kind="text/event-stream")


def forwarded(replies: list[Reply]) -> HeadersReply:
    (head,) = [r for r in replies if isinstance(r, HeadersReply) and r.of_request]
    return head


def sent_to_client(replies: list[Reply]) -> bytes:
    parts = [r.data for r in replies if isinstance(r, BodyReply) and not r.of_request]
    parts += [r.body or b"" for r in replies if isinstance(r, HeadersReply) and not r.of_request]
    return b"".join(parts)


def refusal(replies: list[Reply]) -> tuple[int, dict[str, Any]]:
    (reply,) = replies[-1:]
    assert isinstance(reply, ImmediateReply)
    return reply.status, orjson.loads(reply.body)["error"]


class TestForward:
    async def test_stamp_path_model_and_metadata(self, inside: Inside) -> None:
        head = forwarded(await inside.exchange(request(chat())))
        assert dict(head.set_headers)["x-extproc-pool"] == "openai"
        assert dict(head.set_headers)[":path"] == "/v1/chat/completions"
        assert orjson.loads(head.body or b"")["model"] == "up"
        assert (head.metadata["principal"], head.metadata["model"]) == ("inside", "talker")
        assert isinstance(head.metadata["prompt_tokens"], int)

    @pytest.mark.parametrize("pools", [{"openai"}, {"nothing-else", "openai"}, None])
    async def test_it_goes_where_envoy_can_route_it(self, inside: Inside, pools: set[str] | None) -> None:
        head, *body = request(chat())
        assert isinstance(head, RequestHeaders)
        head = RequestHeaders(head.headers, pools=None if pools is None else frozenset(pools))
        assert dict(forwarded(await inside.exchange([head, *body])).set_headers)["x-extproc-pool"] == "openai"

    async def test_it_is_stamped_for_no_pool_that_envoy_cannot_route_it_to(self, inside: Inside) -> None:
        head, *body = request(chat())
        assert isinstance(head, RequestHeaders)
        status, error = refusal(await inside.exchange([RequestHeaders(head.headers, pools=frozenset({"new"})), *body]))
        assert (status, error["code"]) == (503, "overloaded")

    async def test_the_same_request_in_another_dialect(self, inside: Inside) -> None:
        head = forwarded(await inside.exchange(request(chat("writer", stream=True))))
        assert dict(head.set_headers)[":path"] == "/v2/models/up/generate_stream"
        body = orjson.loads(head.body or b"")
        assert body["text_input"].endswith("<|im_start|>assistant\n")
        assert orjson.loads(body["sampling_parameters"])["max_tokens"] == 100

    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(cuts=st.lists(st.integers(0, 200), max_size=6))
    async def test_any_split_of_the_body_is_the_same_request(self, inside: Inside, cuts: list[int]) -> None:
        body = chat(max_tokens=5, temperature=0.5, stop=["a", "ü"])
        edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
        pieces = [RequestBody(body[a:b]) for a, b in itertools.pairwise(edges)]
        replies = await inside.exchange([RequestHeaders(HEADERS), *pieces, RequestBody(b"", last=True)])
        assert forwarded(replies) == forwarded(await inside.exchange(request(body)))


class TestAnswers:
    async def test_a_whole_answer_is_one_message(self, inside: Inside) -> None:
        replies = await inside.exchange([*request(chat()), *response(WHOLE[:20], WHOLE[20:])])
        (answer,) = replies[1:]
        assert isinstance(answer, HeadersReply)
        body = orjson.loads(answer.body or b"")
        assert (body["id"], body["model"]) == ("chatcmpl-r-1", "talker")
        assert answer.metadata["completion_tokens"] == 1
        (event,) = inside.usage.events
        assert (event["termination"], event["status"], event["upstream_usage"]) == ("COMPLETED", 200, True)
        assert (event["prompt_tokens"], event["completion_tokens"]) == (9, 1)

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=8))
    async def test_any_split_of_a_stream_is_the_same_answer(self, inside: Inside, cuts: list[int]) -> None:
        edges = [0, *sorted(cuts), len(STREAM)]
        pieces = [STREAM[a:b] for a, b in itertools.pairwise(edges)]
        inside.usage.events.clear()
        replies = await inside.exchange([*request(chat(stream=True)), *sse(*pieces)])
        assert sent_to_client(replies) == STREAM.replace(b'"id":"u"', b'"id":"chatcmpl-r-1"').replace(
            b'"model":"up"', b'"model":"talker"'
        )
        (event,) = inside.usage.events
        assert event["termination"] == "COMPLETED"
        # The upstream said nothing of usage, so it was counted here.
        assert (event["upstream_usage"], event["completion_tokens"]) == (False, 5)

    async def test_nothing_is_sent_before_the_first_event(self, inside: Inside) -> None:
        events = [*request(chat(stream=True)), *sse(STREAM)[:1], ResponseBody(CHUNK[:30])]
        assert len(await inside.exchange(events)) == 1

    async def test_an_error_after_the_200_and_before_a_token_is_a_proper_error(self, inside: Inside) -> None:
        replies = await inside.exchange([*request(chat("writer", stream=True)), *sse(b'data: {"error":"broken"}\n\n')])
        assert refusal(replies) == (
            502,
            {"message": "broken", "type": "server_error", "param": None, "code": "upstream_error"},
        )
        assert inside.usage.events[0]["termination"] == "UPSTREAM_ERROR"

    async def test_an_error_in_mid_stream_ends_it_with_an_error_event(self, inside: Inside) -> None:
        first = b'data: {"text_output":"Hi","finish_reason":"None"}\n\n'
        replies = await inside.exchange(
            [*request(chat("writer", stream=True)), *sse(first, b'data: {"error":"broken"}\n\n')]
        )
        body = sent_to_client(replies)
        assert b'"content":"Hi"' in body
        assert body.endswith(b'"code":"upstream_error"}}\n\n')
        assert b"[DONE]" not in body
        last = replies[-1]
        assert isinstance(last, BodyReply)
        assert last.last

    async def test_a_truncated_stream_is_an_error(self, inside: Inside) -> None:
        replies = await inside.exchange([*request(chat(stream=True)), *sse(CHUNK % (b"Hel", b"null"))])
        assert b'"error"' in sent_to_client(replies)
        assert inside.usage.events[0]["termination"] == "UPSTREAM_ERROR"


class TestEnds:
    async def test_hanging_up_in_mid_stream_counts_what_came(self, inside: Inside) -> None:
        events = [*request(chat(stream=True)), *sse(CHUNK % (b"Hello there", b"null"))[:2]]
        await inside.exchange(events)
        (event,) = inside.usage.events
        assert (event["termination"], event["completion_tokens"]) == ("CANCELLED", 2)
        assert event["prompt_tokens"] > 0

    async def test_hanging_up_before_the_request_is_whole(self, inside: Inside) -> None:
        await inside.exchange(request(chat())[:2])
        assert [event["termination"] for event in inside.usage.events] == ["CANCELLED"]

    async def test_an_open_exchange_is_on_record_until_it_is_closed(self, inside: Inside) -> None:
        await inside.exchange(request(chat()), finish=False)
        assert inside.usage.open["r-1"]["model"] == "talker"
        await inside.exchange([*request(chat()), *response(WHOLE)])
        assert inside.usage.open == {}

    @pytest.mark.parametrize(
        ("events", "status", "code"),
        [
            (request(chat(), authorization="Bearer wrong"), 503, "overloaded"),
            (request(chat(), authorization=""), 401, "invalid_api_key"),
            (request(chat("secret")), 403, "model_not_allowed"),
            (request(chat("nobody")), 404, "model_not_found"),
            (request(b"{"), 400, None),
            (request(chat(max_tokens=101)), 400, None),
            (request(chat(n=9)), 400, None),
            (request(b" " * 100_001), 413, "request_too_large"),
            (request(b"", **{"content-length": "100001"}), 413, "request_too_large"),
            (request(b"", **{":path": "/nowhere"}), 404, "unknown_url"),
            (request(b"", **{":method": "GET"}), 405, "method_not_allowed"),
        ],
    )
    async def test_refusals(self, inside: Inside, events: list[Event], status: int, code: str | None) -> None:
        got, error = refusal(await inside.exchange(events))
        assert got == status
        assert set(error) == {"message", "type", "param", "code"}
        if code is not None:
            assert error["code"] == code
        (event,) = inside.usage.events
        assert (event["termination"], event["status"]) == ("REJECTED", status)
        assert event["reason"]

    async def test_a_bug_is_a_500_and_accounted_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def explode(*_: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("extproc.policies.route.Route.on_request", explode)
        broken = Inside(tmp_path)
        status, error = refusal(await broken.exchange(request(chat())))
        assert (status, error["code"]) == (500, "internal_error")
        assert [event["termination"] for event in broken.usage.events] == ["INTERNAL_ERROR"]

    async def test_a_broken_contract_is_raised(self, inside: Inside) -> None:
        with pytest.raises(ProtocolError):
            await inside.exchange([RequestBody(b"first")])

    async def test_without_a_stamp_the_request_goes_nowhere(self, tmp_path: Path) -> None:
        shadowed = Inside(tmp_path, {"route": PolicySettings(mode=PolicyMode.OFF)})
        assert "x-extproc-pool" not in dict(forwarded(await shadowed.exchange(request(chat()))).set_headers)

    async def test_envoys_own_answer_to_an_unseen_request_passes(self, inside: Inside) -> None:
        replies = await inside.exchange(response(b"{}", status=400))
        head = replies[0]
        assert isinstance(head, HeadersReply)
        assert dict(head.set_headers)["x-request-id"]
        assert sent_to_client(replies) == b"{}"
        assert [event["reason"] for event in inside.usage.events] == ["envoy_reply"]
