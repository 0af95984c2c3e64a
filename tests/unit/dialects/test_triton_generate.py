"""The `triton-generate` dialect: parameters carried or refused, answers with Triton's traps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.dialects import openai_api
from extproc.dialects.answer import AnswerEvent, Delta, Done, Failed, Usage
from extproc.dialects.interface import InferenceRequest, RequestHead, UpstreamModel
from extproc.dialects.registry import pool_dialect

TRITON = pool_dialect("triton-generate")
HEAD = RequestHead("POST", "/", {})
MODEL = UpstreamModel("demo llm", 64, lambda request: f"<{request.texts()[0].text}>")
EVENT_STREAM = "text/event-stream; charset=utf-8"


def chat(**fields: Any) -> InferenceRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], **fields}
    return openai_api.CHAT.parse(HEAD, json.dumps(body).encode())


def completion(**fields: Any) -> InferenceRequest:
    return openai_api.COMPLETIONS.parse(HEAD, json.dumps({"model": "m", **fields}).encode())


def sent(request: InferenceRequest) -> dict[str, Any]:
    assert TRITON.check(request) is None
    body: dict[str, Any] = json.loads(TRITON.encode(request, MODEL).body or b"")
    body["sampling_parameters"] = json.loads(body["sampling_parameters"])
    return body


def test_a_chat_becomes_one_text() -> None:
    assert sent(chat(stream=True)) == {
        "text_input": "<Hello>",
        "stream": True,
        "sampling_parameters": {"max_tokens": 64},
        "exclude_input_in_output": True,
        "return_finish_reason": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }


def test_streams_and_whole_answers_have_paths_of_their_own() -> None:
    assert TRITON.encode(chat(stream=True), MODEL).path == "/v2/models/demo%20llm/generate_stream"
    assert TRITON.encode(chat(), MODEL).path == "/v2/models/demo%20llm/generate"


def test_a_prompt_goes_as_it_is() -> None:
    assert sent(completion(prompt="once"))["text_input"] == "once"
    assert sent(completion(prompt=["once"]))["text_input"] == "once"


def test_sampling_parameters_are_carried() -> None:
    given = {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["a", "b"],
        "presence_penalty": 1,
        "frequency_penalty": -1,
    }
    vllm = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": True}
    assert sent(chat(max_tokens=9, user="u", metadata={}, **given, **vllm))["sampling_parameters"] == {
        **given,
        **vllm,
        "max_tokens": 9,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logprobs": False, "top_logprobs": None, "tools": [], "tool_choice": "none", "logit_bias": {}},
        {"response_format": {"type": "text"}, "modalities": ["text"], "store": False, "user": "u"},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
)
def test_parameters_that_ask_for_nothing_special_are_left_out(fields: dict[str, Any]) -> None:
    assert set(sent(chat(**fields))["sampling_parameters"]) == {"max_tokens"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 2}, "logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"guided_json": {}}, "guided_json"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
    ],
)
def test_what_the_backend_cannot_carry_is_refused(fields: dict[str, Any], param: str) -> None:
    rejection = TRITON.check(chat(**fields))
    assert rejection is not None
    assert (rejection.status, rejection.param) == (400, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": "a", "logprobs": 0}, "logprobs"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "suffix": "z"}, "suffix"),
    ],
)
def test_completions_that_cannot_be_carried(fields: dict[str, Any], param: str) -> None:
    rejection = TRITON.check(completion(**fields))
    assert rejection is not None
    assert rejection.param == param


def test_other_operations_are_refused() -> None:
    rejection = TRITON.check(openai_api.EMBEDDINGS.parse(HEAD, b'{"model":"m","input":"x"}'))
    assert rejection is not None
    assert rejection.status == 400


def event(text: str, finish_reason: str = "None", **more: Any) -> bytes:
    content = {
        "finish_reason": finish_reason,
        "model_name": "demo_llm",
        "num_input_tokens": 3,
        "num_output_tokens": 1,
        "text_output": text,
        **more,
    }
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def decode(data: bytes, status: int = 200, content_type: str = EVENT_STREAM) -> list[AnswerEvent]:
    decoder = TRITON.decoder(chat(stream=True), status, content_type)
    return [*decoder.feed(data), *decoder.finish()]


def test_a_stream() -> None:
    assert decode(
        event("Every", cached_tokens=2) + event("") + event(" word") + event(".", "stop", cached_tokens=2)
    ) == [
        Delta(0, "Every"),
        Delta(0, " word"),
        Delta(0, ".", finish_reason="stop"),
        Usage(3, 4, 2),
        Done(),
    ]


def test_an_empty_answer() -> None:
    assert decode(event("", "stop")) == [Delta(0, "", finish_reason="stop"), Usage(3, 1), Done()]


def test_a_whole_answer() -> None:
    body = b'{"finish_reason":"length","num_input_tokens":3,"num_output_tokens":5,"text_output":"Every request"}'
    assert decode(body, 200, "application/json") == [
        Delta(0, "Every request", finish_reason="length"),
        Usage(3, 5),
        Done(),
    ]


def test_an_end_without_a_finish_reason_is_a_failure_with_the_usage_so_far() -> None:
    delta, usage, failure = decode(event("Every"))
    assert (delta, usage) == (Delta(0, "Every"), Usage(3, 1))
    assert isinstance(failure, Failed)
    assert failure.rejection.status == 502


@pytest.mark.parametrize("data", [b"", event("x", "abort"), b"data: {\n\n", b'data: {"text_output":["a","b"]}\n\n'])
def test_what_is_no_answer_is_a_failure(data: bytes) -> None:
    assert isinstance(decode(data)[-1], Failed)


def test_an_error_after_a_200() -> None:
    *_, failure = decode(event("Every") + b'data: {"error":"it broke"}\n\n')
    assert isinstance(failure, Failed)
    assert (failure.rejection.status, failure.rejection.message) == (502, "it broke")


@pytest.mark.parametrize(
    ("status", "content_type", "body", "expected"),
    [
        (200, "application/json", b'{"error":"generate expects model to produce exactly 1 response"}', 502),
        (400, "application/json", b'{"error":"it broke"}', 502),
        (400, EVENT_STREAM, b'data: {"error":"it broke"}\n\n', 502),
        (400, EVENT_STREAM, b'data: {"error":"Stub process \'x\' is not healthy."}\n\n', 503),
        (404, "application/json", b'{"error":"Request for unknown model: \'nope\' is not found"}', 503),
        (500, "application/json", b'{"error":"failed to parse the request JSON buffer"}', 502),
        (503, "text/plain", b"no healthy upstream", 503),
    ],
)
def test_errors_are_never_the_clients(status: int, content_type: str, body: bytes, expected: int) -> None:
    failure = decode(body, status, content_type)[-1]
    assert isinstance(failure, Failed)
    assert failure.rejection.status == expected


def test_log_probabilities_are_asked_for_and_shared_out() -> None:
    """One sum comes, of all tokens until now; each of the new ones gets its share of what is new."""
    wants = UpstreamModel("demo llm", 64, MODEL.render_chat, wants_logprobs=True)
    body = json.loads(TRITON.encode(chat(), wants).body or b"")
    assert body["return_cumulative_logprob"] is True
    assert json.loads(body["sampling_parameters"])["logprobs"] == 1
    pieces = [
        {"text_output": "a", "num_output_tokens": 1, "cumulative_logprob": -0.5},
        {"text_output": "b c", "num_output_tokens": 2, "cumulative_logprob": -2.5},
        {"text_output": "d", "num_output_tokens": 0, "cumulative_logprob": -2.5},
        {"text_output": "", "num_output_tokens": 1, "cumulative_logprob": -2.75, "finish_reason": "stop"},
    ]
    decoder = TRITON.decoder(chat(stream=True), 200, EVENT_STREAM)
    events = [event for piece in pieces for event in decoder.feed(b"data: " + json.dumps(piece).encode() + b"\n\n")]
    said = [[one["logprob"] for one in (event.logprobs or {"content": []})["content"]]
            for event in events if isinstance(event, Delta)]  # fmt: skip
    assert said == [[-0.5], [-1.0, -1.0], [], [-0.25]]
