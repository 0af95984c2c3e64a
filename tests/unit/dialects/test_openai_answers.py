"""Events -> OpenAI's answers, streamed and whole; and the answers of `openai` pools -> events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.dialects import openai_api
from extproc.dialects.answer import AnswerEvent, Delta, Done, Embedding, Failed, Opaque, Origin, Usage
from extproc.dialects.interface import (
    AnswerEncoder,
    AnswerIdentity,
    InferenceRequest,
    RequestHead,
    TokenTotals,
)
from extproc.dialects.openai_api import OpenAiApi
from extproc.dialects.openai_whole import pack_vector, unpack_vector
from extproc.dialects.registry import pool_dialect
from extproc.dialects.sse import SseDecoder
from extproc.operation import Operation
from extproc.rejection import overloaded, upstream_failed

IDENTITY = AnswerIdentity("77", 1700000000, "public")
EVENT_STREAM = "text/event-stream; charset=utf-8"
OPENAI = pool_dialect("openai")


def request_for(api: OpenAiApi, **fields: Any) -> InferenceRequest:
    inputs: dict[Operation, dict[str, Any]] = {
        Operation.CHAT: {"messages": [{"role": "user", "content": "Hello"}]},
        Operation.COMPLETIONS: {"prompt": "Hello"},
        Operation.EMBEDDINGS: {"input": "Hello"},
    }
    given = inputs[api.operation]
    return api.parse(RequestHead("POST", "/", {}), json.dumps({"model": "public", **given, **fields}).encode())


def encoder_for(api: OpenAiApi, totals: TokenTotals | None = None, **fields: Any) -> AnswerEncoder:
    return api.encoder(request_for(api, **fields), IDENTITY, totals or TokenTotals())


def streamed(api: OpenAiApi, *events: AnswerEvent, usage: bool = False, totals: TokenTotals | None = None) -> list[Any]:
    encoder = encoder_for(api, totals, stream=True, stream_options={"include_usage": usage})
    data = b"".join(encoder.encode([event]) for event in events)
    assert encoder.encode([Delta(text="late"), Done()]) == b"" or not isinstance(events[-1], Done | Failed)
    return [
        event.data if event.data == b"[DONE]" else json.loads(event.data or b"") for event in SseDecoder().feed(data)
    ]


def whole(api: OpenAiApi, *events: AnswerEvent, totals: TokenTotals | None = None, **fields: Any) -> Any:
    return json.loads(encoder_for(api, totals, **fields).encode(events))


def choice(content: dict[str, Any], finish_reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"index": index, **content, "logprobs": None, "finish_reason": finish_reason, **more}


def test_a_streamed_chat() -> None:
    *chunks, done = streamed(openai_api.CHAT, Delta(text="Hi"), Delta(), Delta(text="!", finish_reason="stop"), Done())
    assert done == b"[DONE]"
    head = {"id": "chatcmpl-77", "object": "chat.completion.chunk", "created": 1700000000, "model": "public"}
    assert chunks == [
        {**head, "choices": [choice({"delta": {"role": "assistant", "content": ""}})]},
        {**head, "choices": [choice({"delta": {"content": "Hi"}})]},
        {**head, "choices": [choice({"delta": {"content": "!"}}, "stop")]},
    ]


def test_a_streamed_completion() -> None:
    *chunks, done = streamed(openai_api.COMPLETIONS, Delta(text="Hi"), Delta(finish_reason="length"), Done())
    assert done == b"[DONE]"
    head = {"id": "cmpl-77", "object": "text_completion", "created": 1700000000, "model": "public"}
    assert chunks == [
        {**head, "choices": [choice({"text": "Hi"})]},
        {**head, "choices": [choice({"text": ""}, "length")]},
    ]


def test_streamed_usage_comes_last_and_is_null_before() -> None:
    totals = TokenTotals(5, 6, 2)
    *chunks, last, _ = streamed(
        openai_api.CHAT, Delta(text="Hi", finish_reason="stop"), Done(), usage=True, totals=totals
    )
    assert [chunk["usage"] for chunk in chunks] == [None, None]
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 6,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


def test_usage_of_the_upstream_wins_and_the_last_one_counts() -> None:
    totals = TokenTotals(1, 1, 1)
    events: list[AnswerEvent] = [Usage(5, 1), Usage(5, 9), Delta(finish_reason="stop"), Done()]
    *_, last, _ = streamed(openai_api.CHAT, *events, usage=True, totals=totals)
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (5, 9)
    assert whole(openai_api.CHAT, *events, totals=totals)["usage"]["total_tokens"] == 14
    assert whole(openai_api.CHAT, Usage(None, 9), Done(), totals=totals)["usage"]["prompt_tokens"] == 1


def test_usage_nobody_asked_for_is_hidden() -> None:
    raw = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":1}}\n\n'
    assert streamed(openai_api.CHAT, Usage(1, 1, raw=raw), Done()) == [b"[DONE]"]
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"a \\"usage\\":null"}}],"usage":null}\n\n'
    (piece, _) = streamed(openai_api.CHAT, Delta(text="a", raw=chunk), Done())
    assert "usage" not in piece
    assert piece["choices"][0]["delta"]["content"] == 'a "usage":null'


def test_choices_of_one_stream_are_introduced_one_by_one() -> None:
    chunks = streamed(openai_api.CHAT, Delta(1, "b"), Delta(0, "a"), Delta(1, "c"))
    assert [(chunk["choices"][0]["index"], chunk["choices"][0]["delta"]) for chunk in chunks] == [
        (1, {"role": "assistant", "content": ""}),
        (1, {"content": "b"}),
        (0, {"role": "assistant", "content": ""}),
        (0, {"content": "a"}),
        (1, {"content": "c"}),
    ]


TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_tool_calls_reasoning_and_logprobs_are_written() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.1}]}
    delta = Delta(0, "a", "why", None, [TOOL_CALL], logprobs, "tool_calls")
    _, chunk = streamed(openai_api.CHAT, delta)
    assert chunk["choices"][0] == {
        "index": 0,
        "delta": {"reasoning_content": "why", "content": "a", "tool_calls": [{"index": 0, **TOOL_CALL}]},
        "logprobs": logprobs,
        "finish_reason": "tool_calls",
    }
    message = whole(openai_api.CHAT, delta, Done())["choices"][0]["message"]
    assert message["tool_calls"] == [TOOL_CALL]
    assert message["reasoning_content"] == "why"


def test_a_stream_joined_into_one_answer() -> None:
    fragments = [
        [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"a"'}}, {"index": 1, "id": "c2", "function": {"name": "g"}}],
        [{"index": 0, "function": {"arguments": ":1}"}}],
    ]
    answer = whole(
        openai_api.CHAT,
        *(Delta(tool_calls=fragment) for fragment in fragments),
        Delta(1, "B", logprobs={"content": [1]}),
        Delta(1, "b", logprobs={"content": [2]}, finish_reason="stop"),
        Delta(finish_reason="tool_calls"),
        Done(),
    )
    first, second = answer["choices"]
    assert first["message"]["content"] is None
    assert [call["function"] for call in first["message"]["tool_calls"]] == [
        {"name": "f", "arguments": '{"a":1}'},
        {"name": "g", "arguments": ""},
    ]
    assert second["message"]["content"] == "Bb"
    assert second["logprobs"] == {"content": [1, 2]}
    assert [one["finish_reason"] for one in (first, second)] == ["tool_calls", "stop"]


def test_absurd_tool_call_indexes_cost_nothing() -> None:
    answer = whole(openai_api.CHAT, Delta(tool_calls=[{"index": 10**9, "function": {"name": "f"}}]), Done())
    assert len(answer["choices"][0]["message"].get("tool_calls", [])) <= 1024


def test_a_failure_after_the_first_byte_is_an_error_event_and_the_end() -> None:
    *_, last = streamed(openai_api.CHAT, Delta(text="Hi"), Failed(upstream_failed("it broke")), Done(), usage=True)
    assert last == {"error": {"message": "it broke", "type": "server_error", "param": None, "code": "upstream_error"}}


def test_a_failure_before_the_answer_is_an_error_body() -> None:
    answer = whole(openai_api.CHAT, Delta(text="Hi"), Failed(overloaded("full", "x")), Done())
    assert answer["error"]["code"] == "overloaded"


@pytest.mark.parametrize(
    ("encoding_format", "vector"), [("float", [0.5, -1.0]), ("base64", "AAAAPwAAgL8="), (None, [0.5, -1.0])]
)
def test_embeddings_are_written_as_asked(encoding_format: str | None, vector: Any) -> None:
    for event in (Embedding(0, [0.5, -1.0]), Embedding(0, None, "AAAAPwAAgL8=")):
        answer = whole(openai_api.EMBEDDINGS, event, Done(), totals=TokenTotals(3), encoding_format=encoding_format)
        assert answer == {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": vector}],
            "model": "public",
            "usage": {"prompt_tokens": 3, "total_tokens": 3},
        }


def test_vectors_survive_base64() -> None:
    assert unpack_vector(pack_vector([0.25, -3.5, 1e10])) == [0.25, -3.5, 1e10]
    with pytest.raises(ValueError, match="padding"):
        unpack_vector("AAA")


def decode(data: bytes, status: int = 200, content_type: str = EVENT_STREAM, **fields: Any) -> list[AnswerEvent]:
    decoder = OPENAI.decoder(request_for(openai_api.CHAT, stream=True, **fields), status, content_type)
    events = [*decoder.feed(data), *decoder.finish()]
    assert decoder.finish() == []
    assert decoder.feed(b"data: more\n\n") == []
    return events


def chunk_of(*choices: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + json.dumps({"id": "i", "model": "m", "choices": choices, **more}).encode() + b"\n\n"


def one(text: str, finish_reason: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, "finish_reason": finish_reason}


def test_a_truncated_stream_has_failed() -> None:
    assert isinstance(decode(chunk_of(one("a")))[-1], Failed)
    assert isinstance(decode(b"")[-1], Failed)
    assert isinstance(decode(chunk_of(one("a", "stop")), n=2)[-1], Failed)


def test_a_stream_whose_choices_finished_is_complete_without_its_done() -> None:
    assert isinstance(decode(chunk_of(one("a", "stop")))[-1], Done)


def test_several_facts_in_one_chunk_are_events_without_bytes() -> None:
    events = decode(chunk_of(one("a"), one("b", None, 1), usage={"prompt_tokens": 1, "completion_tokens": 2}))
    assert events[:4] == [Origin("i", "m"), Delta(0, "a"), Delta(1, "b"), Usage(1, 2)]


def test_comments_and_chunks_without_choices_pass_on() -> None:
    events = decode(b": wait\n\n" + chunk_of(prompt_filter_results=[]) + b"data: [DONE]\n\n")
    assert [type(event) for event in events] == [Opaque, Origin, Opaque, Done]


@pytest.mark.parametrize(
    "data",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        b'data: {"choices":[{"delta":{"content":5}}]}\n\n',
        b"data: \xff\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: " + b"x" * (2 << 20),
    ],
)
def test_events_that_cannot_be_read_are_failures(data: bytes) -> None:
    events = decode(data)
    assert [type(event) for event in events] == [Failed]


@pytest.mark.parametrize(
    ("error", "status"),
    [({"message": "m", "code": 400}, 400), ({"message": "m", "code": 503}, 503), ({"message": "m"}, 502), ("m", 502)],
)
def test_errors_inside_a_stream(error: Any, status: int) -> None:
    events = decode(chunk_of(one("a")) + b"data: " + json.dumps({"error": error}).encode() + b"\n\ndata: [DONE]\n\n")
    assert isinstance(events[-1], Failed)
    assert (events[-1].rejection.status, events[-1].rejection.message) == (status, "m")


@pytest.mark.parametrize(
    ("status", "body", "expected", "message"),
    [
        (400, b'{"error":{"message":"bad","param":"stop","code":"x"}}', 400, "bad"),
        (400, b'{"object":"error","message":"bad","type":"BadRequestError","code":400}', 400, "bad"),
        (422, b'{"detail":[{"loc":["body"],"msg":"bad"}]}', 400, "bad"),
        (
            401,
            b'{"error":{"message":"key sk-123 is wrong"}}',
            502,
            "The model server refused the gateway's request (401).",
        ),
        (404, b'{"error":{"message":"no such route"}}', 502, "The model server refused the gateway's request (404)."),
        (429, b'{"error":{"message":"full"}}', 503, "full"),
        (503, b"", 503, "The model server is overloaded."),
        (504, b"", 504, "The model server timed out."),
        (500, b"<html>", 502, "The model server failed (500)."),
        (302, b"", 502, "The model server refused the gateway's request (302)."),
        (500, b"[" * 100_000, 502, "The model server failed (500)."),
    ],
)
def test_upstream_errors(status: int, body: bytes, expected: int, message: str) -> None:
    (failure,) = decode(body, status, "application/json")
    assert isinstance(failure, Failed)
    assert (failure.rejection.status, failure.rejection.message) == (expected, message)


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b'{"choices":[]}', b"null", b'{"error":{"message":"m"}}'])
def test_whole_answers_that_are_none_have_failed(body: bytes) -> None:
    assert [type(event) for event in decode(body, 200, "application/json")] == [Failed]


def whole_body(text: str) -> bytes:
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    return json.dumps({"id": "i", "model": "m", "secret": 1, "choices": choices, "usage": usage}).encode()


def test_a_whole_answer_for_a_client_that_streams_is_streamed() -> None:
    chunks = streamed(openai_api.CHAT, *decode(whole_body("Hi"), 200, "application/json"))
    assert chunks[1]["choices"][0]["delta"] == {"content": "Hi"}
    assert chunks[-1] == b"[DONE]"


def test_changed_whole_answers_are_written_anew() -> None:
    events = decode(whole_body("Hi"), 200, "application/json")
    assert whole(openai_api.CHAT, *events)["secret"] == 1
    changed = [Delta(0, "Ho", finish_reason="stop") if isinstance(event, Delta) else event for event in events]
    answer = whole(openai_api.CHAT, *changed)
    assert answer["choices"][0]["message"]["content"] == "Ho"
    assert "secret" not in answer
    assert "secret" not in whole(openai_api.CHAT, *(event for event in events if not isinstance(event, Delta)))
