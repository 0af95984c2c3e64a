"""Whatever bytes come from clients and servers: only the declared exception, and the same answer for any split."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.dialects import kserve_api, openai_api
from extproc.dialects.answer import AnswerEvent, Delta, Done, Failed, Opaque
from extproc.dialects.interface import (
    AnswerIdentity,
    ClientApi,
    InferenceRequest,
    InvalidRequest,
    RequestHead,
    TokenTotals,
    UpstreamModel,
)
from extproc.dialects.registry import pool_dialect, resolve

APIS: dict[str, ClientApi] = {
    "/v1/chat/completions": openai_api.CHAT,
    "/v1/completions": openai_api.COMPLETIONS,
    "/v1/embeddings": openai_api.EMBEDDINGS,
    "/v2/models/m/infer": kserve_api.INFER,
}
DIALECTS = [pool_dialect(name) for name in ("openai", "triton-generate", "kserve")]
MODEL = UpstreamModel("up", 16, lambda request: "prompt")

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["type", "text", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)
keys = st.sampled_from(
    ["model", "messages", "prompt", "input", "n", "max_tokens", "stream", "stream_options", "stop", "tools", "inputs",
     "temperature", "response_format", "logit_bias", "tool_choice", "encoding_format", "best_of", "unknown"]
)  # fmt: skip
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "x"]) | json_values},
    optional={"content": json_values, "tool_calls": json_values, "name": json_values, "tool_call_id": st.just("1")},
)
tensor = st.fixed_dictionaries(
    {"name": st.text("ab"), "shape": st.just([1]), "datatype": st.sampled_from(["BYTES", "FP32"])},
    optional={"data": json_values, "parameters": st.dictionaries(st.just("binary_data_size"), json_values)},
)
bodies = st.builds(
    lambda base, extra: json.dumps({**base, **extra}).encode(),
    st.fixed_dictionaries(
        {"model": st.just("m"), "messages": st.lists(message, max_size=3), "inputs": st.lists(tensor, max_size=2)}
    ),
    st.dictionaries(keys, json_values, max_size=4),
)


@settings(deadline=None)
@given(st.sampled_from(sorted(APIS)), bodies | st.binary(max_size=200), st.none() | st.integers(-1, 300).map(str))
def test_any_body_is_understood_or_refused(path: str, body: bytes, header_length: str | None) -> None:
    headers = {} if header_length is None else {kserve_api.HEADER_LENGTH: header_length}
    try:
        request = APIS[path].parse(RequestHead("POST", path, headers), body)
    except InvalidRequest as refused:
        json.loads(APIS[path].error(refused.rejection))
        return
    request.replace_texts(request.texts())
    for dialect in DIALECTS:
        if dialect.check(request) is None:
            assert dialect.encode(request, MODEL).body


@settings(deadline=None)
@given(
    st.sampled_from(["GET", "POST", "x"]),
    st.text(max_size=40)
    | st.lists(
        st.sampled_from(["/", "v1", "v2", "models", "m", "%", "%2F", "..", "infer", "versions", "?", "1", "\x00"])
    ).map("".join),
)
def test_any_path_is_a_route(method: str, path: str) -> None:
    route = resolve(RequestHead(method, path, {}))
    assert route.api or route.lists_models or route.model_id is not None or route.rejection


def request_for(stream: bool, embeddings: bool = False) -> InferenceRequest:
    if embeddings:
        return openai_api.EMBEDDINGS.parse(RequestHead("POST", "/", {}), b'{"model":"m","input":"x"}')
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    return openai_api.CHAT.parse(RequestHead("POST", "/", {}), json.dumps(body).encode())


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
openai_chunks = st.builds(
    lambda text, finish, usage: {
        "id": "i",
        "model": "up",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}],
        "usage": usage,
    },
    texts, st.none() | st.just("stop"), st.none() | st.just({"prompt_tokens": 1, "completion_tokens": 2}),
)  # fmt: skip
triton_events = st.builds(
    lambda text, finish: {"text_output": text, "finish_reason": finish, "num_input_tokens": 1, "num_output_tokens": 1},
    texts, st.sampled_from(["None", "stop"]),
)  # fmt: skip
odd_lines = st.sampled_from([b"data: [DONE]", b": comment", b'data: {"error":"x"}', b"data: {", b"event: x", b"\xff"])
streams = st.lists(
    (openai_chunks | triton_events).map(lambda chunk: b"data: " + json.dumps(chunk, ensure_ascii=False).encode())
    | odd_lines,
    max_size=8,
).map(lambda lines: b"".join(line + b"\n\n" for line in lines))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.parametrize("name", ["openai", "triton-generate"])
@settings(deadline=None)
@given(streams | st.binary(max_size=100), st.lists(st.integers(0, 10_000), max_size=8), st.booleans())
def test_any_split_of_an_answer_gives_the_same_events_and_bytes(
    name: str, data: bytes, cuts: list[int], stream: bool
) -> None:
    request = request_for(stream)

    def run(chunks: list[bytes]) -> tuple[list[AnswerEvent], bytes]:
        decoder = pool_dialect(name).decoder(request, 200, "text/event-stream")
        encoder = openai_api.CHAT.encoder(request, AnswerIdentity("1", 1, "public"), TokenTotals(1, 1))
        events: list[AnswerEvent] = []
        sent = b""
        for chunk in chunks:
            new = decoder.feed(chunk)
            events += new
            sent += encoder.encode(new)
        last = decoder.finish()
        return events + last, sent + encoder.encode(last)

    events, sent = run([data])
    assert run(pieces(data, cuts)) == (events, sent)
    assert run([data[i : i + 1] for i in range(len(data))]) == (events, sent)
    assert [type(event) in (Done, Failed) for event in events] == [False] * (len(events) - 1) + [True]
    if stream:
        assert sent.endswith(b"data: [DONE]\n\n") == isinstance(events[-1], Done)


@settings(deadline=None)
@given(
    st.sampled_from(["openai", "triton-generate", "kserve"]),
    st.sampled_from([200, 400, 404, 500]),
    st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()),
    st.booleans(),
)
def test_any_whole_answer_ends_once(name: str, status: int, body: bytes, error: bool) -> None:
    request = request_for(stream=False, embeddings=name == "kserve")
    decoder = pool_dialect(name).decoder(request, status, "application/json")
    content = b'{"error":' + body + b"}" if error else body
    events = [*decoder.feed(content), *decoder.finish(), *decoder.finish()]
    assert [type(event) in (Done, Failed) for event in events] == [False] * (len(events) - 1) + [True]
    if status != 200:
        assert isinstance(events[-1], Failed)


@settings(deadline=None)
@given(st.lists(texts.filter(bool), min_size=1, max_size=6), st.integers(0, 5))
def test_a_stream_says_what_the_whole_answer_says(parts: list[str], changed: int) -> None:
    """The same events, streamed and whole, changed by a policy or not."""
    body = b"".join(
        b"data: "
        + json.dumps({"id": "i", "model": "up", "choices": [{"index": 0, "delta": {"content": part}}]}).encode()
        + b"\n\n"
        for part in parts
    )
    finish: dict[str, Any] = {"id": "i", "model": "up", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    body += b"data: " + json.dumps(finish).encode() + b"\n\ndata: [DONE]\n\n"
    decoder = pool_dialect("openai").decoder(request_for(stream=True), 200, "text/event-stream")
    events = [*decoder.feed(body), *decoder.finish()]
    deltas = [position for position, event in enumerate(events) if isinstance(event, Delta)]
    events[deltas[changed % len(parts)]] = Delta(0, "changed")
    said = "".join(event.text for event in events if isinstance(event, Delta))
    identity = AnswerIdentity("1", 1, "public")
    whole = openai_api.CHAT.encoder(request_for(stream=False), identity, TokenTotals()).encode(events)
    assert json.loads(whole)["choices"][0]["message"]["content"] == said
    streamed = openai_api.CHAT.encoder(request_for(stream=True), identity, TokenTotals()).encode(events)
    again = pool_dialect("openai").decoder(request_for(stream=True), 200, "text/event-stream").feed(streamed)
    assert "".join(event.text for event in again if isinstance(event, Delta)) == said
    assert not any(isinstance(event, Opaque) for event in again)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[' + b'{"role":"user","content":"x"},' * 30_000 + b'{"role":"user","content":"x"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * 1_000_000 + b'"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"x":[' + b"[]," * 300_000 + b"[]]}",
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"x":[' + b"[[[[[[[[1]]]]]]]]," * 50_000 + b"1]}",
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":' + b"1" * 1_000_000 + b"}",
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'"' + b"\\u0061" * 160_000,
    ],
)
def test_a_megabyte_of_anything_is_judged_soon(body: bytes) -> None:
    began_s = time.process_time()
    with contextlib.suppress(InvalidRequest):
        openai_api.CHAT.parse(RequestHead("POST", "/", {}), body)
    assert time.process_time() - began_s < 2
