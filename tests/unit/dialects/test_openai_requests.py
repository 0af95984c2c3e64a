"""OpenAI request bodies: what is understood, what is refused and in which words, what can be replaced."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc.dialects import openai_api
from extproc.dialects.interface import InferenceRequest, InvalidRequest, RequestHead, TextSegment, UpstreamModel
from extproc.dialects.openai_api import OpenAiApi
from extproc.dialects.registry import pool_dialect
from extproc.rejection import Rejection

HEAD = RequestHead("POST", "/v1/chat/completions", {})
HELLO = [{"role": "user", "content": "Hello"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}

IMAGE = {"type": "image_url", "image_url": {"url": "x"}}


def content(*parts: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": parts}]}


def called(function: dict[str, Any]) -> dict[str, Any]:
    calls = [{"id": "1", "type": "function", "function": function}]
    return {"messages": [{"role": "assistant", "tool_calls": calls}]}


def parse(body: bytes | dict[str, Any], api: OpenAiApi = openai_api.CHAT) -> InferenceRequest:
    return api.parse(HEAD, body if isinstance(body, bytes) else json.dumps(body).encode())


def chat(**fields: Any) -> InferenceRequest:
    return parse({"model": "m", "messages": HELLO, **fields})


def refusal(body: bytes | dict[str, Any], api: OpenAiApi = openai_api.CHAT) -> Rejection:
    with pytest.raises(InvalidRequest) as caught:
        parse(body, api)
    rejection = caught.value.rejection
    assert (rejection.status, rejection.type) == (400, "invalid_request_error")
    return rejection


def upstream(request: InferenceRequest, cap_tokens: int = 1000) -> dict[str, Any]:
    body = pool_dialect("openai").encode(request, UpstreamModel("up", cap_tokens)).body
    fields: dict[str, Any] = json.loads(body or b"")
    return fields


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b"\xff\xfe",
        b'{"model":"\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"model":NaN}',
        b'{"temperature":Infinity}',
        b'{"temperature":1e999}',
        b'{"model":"\\ud800"}',
        b'{"model":"m"} trailing',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"x":' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_a_json_object_is_refused(body: bytes) -> None:
    assert refusal(body).message


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "invalid_type"),
        ({"model": ""}, "model", "empty_string"),
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [*HELLO, {"role": "user"}]}, "messages[1].content", "missing_required_parameter"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "empty_array"),
        (content({"type": "smell"}), "messages[0].content[0].type", "invalid_value"),
        (content(IMAGE, role="system"), "messages[0].content[0].type", "invalid_value"),
        (content({"type": "text"}), "messages[0].content[0].text", "missing_required_parameter"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content", "invalid_type"),
        (called({"name": "f"}), "messages[0].tool_calls[0].function.arguments", "missing_required_parameter"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 129}, "n", "integer_above_max_value"),
        ({"n": 1.5}, "n", "invalid_type"),
        ({"n": True}, "n", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": -1}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": "5"}, "max_tokens", "invalid_type"),
        ({"max_tokens": 10**30}, "max_tokens", "integer_above_max_value"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "integer_below_min_value"),
        ({"temperature": -0.5}, "temperature", "decimal_below_min_value"),
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value"),
        ({"top_p": 1.1}, "top_p", "decimal_above_max_value"),
        ({"presence_penalty": -3}, "presence_penalty", "decimal_below_min_value"),
        ({"seed": 2**63}, "seed", "integer_above_max_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "array_above_max_length"),
        ({"stop": [1]}, "stop[0]", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage", "invalid_type"),
        ({"top_logprobs": 2}, "top_logprobs", None),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "integer_above_max_value"),
        ({"logit_bias": {"50256": 101}}, "logit_bias", "decimal_above_max_value"),
        ({"tools": [{"type": "hammer"}]}, "tools[0].type", "invalid_value"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "missing_required_parameter"),
        ({"tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {}}, "response_format.type", "missing_required_parameter"),
    ],
)  # fmt: skip
def test_wrong_chats_are_refused_naming_the_parameter(fields: dict[str, Any], param: str, code: str | None) -> None:
    rejection = refusal({"model": "m", "messages": HELLO, **fields})
    assert (rejection.param, rejection.code) == (param, code)


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_missing_parameters_are_named_as_openai_names_them(missing: str) -> None:
    rejection = refusal({key: value for key, value in {"model": "m", "messages": HELLO}.items() if key != missing})
    assert rejection.message == f"Missing required parameter: '{missing}'."
    assert (rejection.param, rejection.code) == (missing, "missing_required_parameter")


def test_messages_are_worded_as_openai_words_them() -> None:
    def message(**fields: Any) -> str:
        return refusal({"model": "m", "messages": HELLO, **fields}).message

    assert message(n=0) == "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead."
    assert message(max_tokens="5") == "Invalid type for 'max_tokens': expected an integer, but got a string instead."
    assert message(stop=list("abcde")) == (
        "Invalid 'stop': array too long. "
        "Expected an array with maximum length 4, but got an array with length 5 instead."
    )
    assert message(tool_choice="x") == "Invalid value: 'x'. Supported values are: 'none', 'auto', and 'required'."


def test_null_means_not_given() -> None:
    request = chat(
        n=None, max_tokens=None, temperature=None, stop=None, stream=None, stream_options=None, tools=None, user=None
    )
    assert (request.choices, request.output_limit_tokens, request.stream) == (1, None, False)


def test_the_largest_cap_is_the_output_limit() -> None:
    assert chat().output_limit_tokens is None
    assert chat(max_tokens=5).output_limit_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=9).output_limit_tokens == 9


def test_caps_go_upstream_never_above_the_limit_and_always() -> None:
    assert upstream(chat(), 7)["max_tokens"] == 7
    assert upstream(chat(max_completion_tokens=5), 7)["max_completion_tokens"] == 5
    lowered = chat(max_tokens=50, max_completion_tokens=5)
    lowered.output_limit_tokens = 10
    sent = upstream(lowered)
    assert (sent["max_tokens"], sent["max_completion_tokens"]) == (10, 5)


def test_unknown_parameters_and_fields_reach_openai_pools() -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "x", "cache_control": {"type": "ephemeral"}}],
        "guided_json": {"a": [1, 2.5, None, True]},
        "big": 10**25,
    }
    assert upstream(parse(body), 3) == {**body, "model": "up", "max_tokens": 3}


def test_of_a_key_given_twice_the_last_is_read_and_alone_goes_upstream() -> None:
    body = b'{"model":"a","model":"b","messages":[{"role":"user","content":"x","content":"y"}]}'
    request = parse(body)
    assert (request.model, [segment.text for segment in request.texts()]) == ("b", ["y"])
    sent = pool_dialect("openai").encode(request, UpstreamModel("up", 1)).body or b""
    assert sent.count(b'"content"') == 1
    assert b'"x"' not in sent


def test_usage_is_always_asked_for_on_streams() -> None:
    request = chat(stream=True)
    assert not request.include_usage
    assert upstream(request)["stream_options"] == {"include_usage": True}
    request = chat(stream=True, stream_options={"include_usage": False, "x": 1})
    assert not request.include_usage
    assert upstream(request)["stream_options"] == {"include_usage": True, "x": 1}
    assert "stream_options" not in upstream(chat())


MESSAGES: list[dict[str, Any]] = [
    {"role": "developer", "content": [{"type": "text", "text": "rules"}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "file", "file": {"file_id": "f"}},
            {"type": "text", "text": "closely"},
        ],
    },
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "found"},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    {"role": "user", "content": "then", "name": "ann"},
]


def test_every_text_of_a_chat_is_found_in_order() -> None:
    assert [(segment.role, segment.text) for segment in chat(messages=MESSAGES).texts()] == [
        ("system", "rules"),
        ("user", "look"),
        ("user", "closely"),
        ("assistant", '{"x":1}'),
        ("tool", "found"),
        ("assistant", "no"),
        ("user", "then"),
    ]


def test_replaced_texts_go_upstream_and_nothing_else_changes() -> None:
    request = chat(messages=MESSAGES)
    request.replace_texts(
        [TextSegment(s.role, s.text.upper(), s.locator) for s in request.texts() if s.text in ("closely", "found")]
    )
    assert [segment.text for segment in request.texts()] == [
        "rules",
        "look",
        "CLOSELY",
        '{"x":1}',
        "FOUND",
        "no",
        "then",
    ]
    sent = json.dumps(upstream(request)["messages"])
    assert sent == json.dumps(MESSAGES).replace("closely", "CLOSELY").replace("found", "FOUND")


def completion(**fields: Any) -> InferenceRequest:
    return parse({"model": "m", **fields}, openai_api.COMPLETIONS)


@pytest.mark.parametrize(
    ("prompt", "texts", "choices"),
    [
        ("a", ["a"], 2),
        ("", [""], 2),
        (["a", "b"], ["a", "b"], 4),
        ([1, 2, 3], [], 2),
        ([[1], [2, 3]], [], 4),
    ],
)
def test_prompts(prompt: Any, texts: list[str], choices: int) -> None:
    request = completion(prompt=prompt, n=2, max_tokens=4)
    assert [segment.text for segment in request.texts()] == texts
    assert (request.choices, request.output_limit_tokens) == (choices, 4)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [1, -1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [[1], [2.5]]}, "prompt[1]"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"prompt": "a", "best_of": 1, "n": 2}, "best_of"),
        ({"prompt": "a", "best_of": 2, "stream": True}, "best_of"),
        ({"prompt": "a", "logprobs": 6}, "logprobs"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ],
)
def test_wrong_completions_are_refused(fields: dict[str, Any], param: str) -> None:
    assert refusal({"model": "m", **fields}, openai_api.COMPLETIONS).param == param


@pytest.mark.parametrize("value", ["a", ["a", "b"], [1, 2], [[1], [2]]])
def test_embeddings_inputs(value: Any) -> None:
    request = parse({"model": "m", "input": value}, openai_api.EMBEDDINGS)
    assert request.output_limit_tokens == 0
    assert upstream(request) == {"model": "up", "input": value}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": {"a": 1}}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
    ],
)
def test_wrong_embeddings_are_refused(fields: dict[str, Any], param: str) -> None:
    assert refusal({"model": "m", **fields}, openai_api.EMBEDDINGS).param == param


def test_replaced_inputs() -> None:
    request = parse({"model": "m", "input": ["a", "b"]}, openai_api.EMBEDDINGS)
    request.replace_texts([TextSegment("input", "B", request.texts()[1].locator)])
    assert upstream(request)["input"] == ["a", "B"]


def test_an_embeddings_request_may_say_anything_of_streams() -> None:
    request = parse({"model": "m", "input": "a", "stream": True, "stream_options": True}, openai_api.EMBEDDINGS)
    assert (request.stream, request.include_usage) == (False, False)


SECRET = "my number is 4111"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": SECRET, "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": SECRET}]}]},
        {"tool_choice": SECRET},
        {"logit_bias": {SECRET: 1000}},
        {"response_format": {"type": SECRET}},
        {"tools": [{"type": SECRET}]},
    ],
)
def test_errors_do_not_repeat_what_may_be_somebodys_words(fields: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": SECRET}], **fields}
    refused = refusal(body)
    assert SECRET not in f"{refused.message} {refused.param}"
    assert refused.message


def test_log_probabilities_are_asked_for_where_the_gateway_wants_them() -> None:
    """What a client asked for itself stays."""
    wants = UpstreamModel("up", 10, wants_logprobs=True)
    for request, logprobs in (
        (chat(), True),
        (chat(logprobs=False), True),
        (chat(logprobs=True, top_logprobs=3), True),
        (completion(prompt="x"), 1),
        (completion(prompt="x", logprobs=0), 0),
        (completion(prompt="x", logprobs=4), 4),
    ):
        sent = json.loads(pool_dialect("openai").encode(request, wants).body or b"")
        assert sent["logprobs"] == logprobs
        assert sent.get("top_logprobs") == (3 if "top_logprobs" in sent else None)
        assert upstream(request).get("logprobs") in (logprobs, None, False)
