"""Real exchanges with OpenAI: requests parse, answers pass byte for byte, changed answers keep their meaning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from extproc.dialects import openai_api
from extproc.dialects.answer import AnswerEvent, Delta, Done, Failed, Origin, Usage
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
from extproc.dialects.sse import SseDecoder
from tests.helpers.data import Recording, recordings

RECORDINGS = recordings()
ANSWERED = [recording for recording in RECORDINGS if recording.status == 200]
OPENAI = pool_dialect("openai")

pytestmark = pytest.mark.skipif(not RECORDINGS, reason="the sample data ../shared/data is not here")


def by_name(recording: Recording) -> str:
    return recording.name


def parse(recording: Recording) -> tuple[ClientApi, InferenceRequest]:
    head = RequestHead("POST", recording.url_path, {})
    api = resolve(head).api
    assert api is not None
    return api, api.parse(head, recording.request)


def decode(recording: Recording, request: InferenceRequest) -> list[AnswerEvent]:
    decoder = OPENAI.decoder(request, recording.status, recording.content_type)
    return [*decoder.feed(recording.answer), *decoder.finish()]


def identity_of(events: Sequence[AnswerEvent]) -> AnswerIdentity:
    origin = next(event for event in events if isinstance(event, Origin))
    return AnswerIdentity(origin.id.rpartition("-")[2], 1, origin.model)


@pytest.mark.parametrize("recording", ANSWERED, ids=by_name)
def test_untouched_answers_pass_byte_for_byte(recording: Recording) -> None:
    api, request = parse(recording)
    events = decode(recording, request)
    assert isinstance(events[-1], Done)
    encoder = api.encoder(request, identity_of(events), TokenTotals())
    assert encoder.encode(events) == recording.answer
    assert recording.content_type.partition(";")[0] == (encoder.content_type or "").partition(";")[0]


@pytest.mark.parametrize("recording", ANSWERED, ids=by_name)
def test_only_id_and_model_are_rewritten(recording: Recording) -> None:
    api, request = parse(recording)
    events = decode(recording, request)
    origin = next(event for event in events if isinstance(event, Origin))
    encoded = api.encoder(request, AnswerIdentity("ours", 1, 'pub"lic'), TokenTotals()).encode(events)
    prefix = origin.id.partition("-")[0]
    expected = recording.answer
    if origin.id:
        expected = expected.replace(f'"{origin.id}"'.encode(), f'"{prefix}-ours"'.encode())
    expected = expected.replace(f'"{origin.model}"'.encode(), b'"pub\\"lic"')
    assert pieces(encoded, request) == pieces(expected, request)


@pytest.mark.parametrize("recording", ANSWERED, ids=by_name)
def test_answers_written_anew_mean_the_same(recording: Recording) -> None:
    api, request = parse(recording)
    events = [event for event in decode(recording, request) if not isinstance(event, Origin)]
    anew = [structs.replace(event, raw=None) if isinstance(event, Delta | Usage) else event for event in events]
    encoded = api.encoder(request, identity_of(decode(recording, request)), TokenTotals()).encode(anew)
    assert meaning(encoded, request) == meaning(recording.answer, request)


@pytest.mark.parametrize("recording", ANSWERED, ids=by_name)
def test_usage_is_read(recording: Recording) -> None:
    _, request = parse(recording)
    whole = b"usage" in recording.answer
    usages = [event for event in decode(recording, request) if isinstance(event, Usage)]
    assert bool(usages) is whole
    assert all((usage.prompt_tokens or 0) > 0 for usage in usages)


@pytest.mark.parametrize("recording", ANSWERED, ids=by_name)
def test_requests_keep_every_field_on_the_way_up(recording: Recording) -> None:
    _, request = parse(recording)
    assert OPENAI.check(request) is None
    call = OPENAI.encode(request, UpstreamModel("upstream", 77))
    sent, came = json.loads(call.body or b""), json.loads(recording.request)
    assert call.path == recording.url_path
    assert sent.pop("model") == "upstream"
    if request.stream:
        assert sent.pop("stream_options") == {"include_usage": True}
    if "max_tokens" not in came:
        assert sent.pop("max_tokens", 77) == 77
    came.pop("model")
    came.pop("stream_options", None)
    assert sent == came


def test_refused_requests_name_the_same_parameter() -> None:
    refused = {recording.name: recording for recording in RECORDINGS if recording.status == 400}
    for recording in refused.values():
        with pytest.raises(InvalidRequest) as caught:
            parse(recording)
        error = json.loads(recording.answer)["error"]
        ours = json.loads(openai_api.CHAT.error(caught.value.rejection))["error"]
        assert ours.keys() == error.keys()
        assert ours["type"] == error["type"]
    # The chat recording is refused for what its model does not support; ours for the first wrong parameter.
    with pytest.raises(InvalidRequest) as caught:
        parse(refused["completion-bad-request"])
    assert (caught.value.rejection.param, caught.value.rejection.code) == ("max_tokens", "integer_below_min_value")


def test_upstream_errors_are_passed_on() -> None:
    recording = next(recording for recording in RECORDINGS if recording.name == "completion-bad-request")
    _, request = parse(next(one for one in RECORDINGS if one.name == "completion-basic"))
    (failure,) = decode(recording, request)
    assert isinstance(failure, Failed)
    assert (failure.rejection.status, failure.rejection.param) == (400, "max_tokens")
    assert "below minimum value" in failure.rejection.message


def pieces(answer: bytes, request: InferenceRequest) -> list[Any]:
    if not request.stream:
        return [json.loads(answer)]
    return [
        event.data if event.data == b"[DONE]" else json.loads(event.data or b"") for event in SseDecoder().feed(answer)
    ]


def meaning(answer: bytes, request: InferenceRequest) -> dict[Any, Any]:
    """Per choice: text, tool calls, finish reason; and the usage; and the vectors."""
    found: dict[Any, Any] = {}
    for piece in pieces(answer, request):
        if piece == b"[DONE]":
            found["done"] = True
            continue
        found["model"] = piece["model"]
        if piece.get("usage"):
            found["usage"] = [piece["usage"].get(key) for key in ("prompt_tokens", "total_tokens")]
        for choice in piece.get("choices", ()):
            message = choice.get("delta") or choice.get("message") or choice
            kept = found.setdefault(choice["index"], {"text": "", "calls": [], "finish": None})
            kept["text"] += message.get("content") or message.get("text") or ""
            kept["calls"] += [
                (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
                for call in message.get("tool_calls") or ()
            ]
            kept["finish"] = choice["finish_reason"] or kept["finish"]
        found.setdefault("vectors", []).extend(item["embedding"] for item in piece.get("data", ()))
    return found


def test_a_piece_that_a_policy_changed_is_the_only_one_written_anew() -> None:
    recording = next(recording for recording in RECORDINGS if recording.name == "chat-streaming")
    api, request = parse(recording)
    events = decode(recording, request)
    position = next(i for i, event in enumerate(events) if isinstance(event, Delta) and event.text == " there")
    events[position] = Delta(0, " friend")
    encoded = api.encoder(request, identity_of(events), TokenTotals()).encode(events)
    before, after = pieces(recording.answer, request), pieces(encoded, request)
    assert len(before) == len(after)
    different = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [piece["choices"][0]["delta"] for piece in different] == [{"content": " friend"}]
