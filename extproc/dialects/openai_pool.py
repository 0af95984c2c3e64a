"""The `openai` dialect: pools that speak OpenAI's API themselves (Triton's OpenAI frontend, vLLM).

A request keeps every field the client sent; what changes is the model name, the cap on output, and that usage is
always asked for on streams. Pieces of an answer keep their bytes (`raw`) where one piece came alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from extproc.dialects.answer import AnswerEvent, Delta, Done, Embedding, Failed, Opaque, Origin, Usage
from extproc.dialects.decoding import (
    ErrorDecoder,
    SseAnswerDecoder,
    WholeAnswerDecoder,
    failed,
    is_error,
    is_stream,
)
from extproc.dialects.interface import (
    AnswerDecoder,
    InferenceRequest,
    UpstreamCall,
    UpstreamModel,
)
from extproc.dialects.openai_requests import OpenAiRequest
from extproc.dialects.sse import SseEvent
from extproc.dialects.upstream_errors import rejection_of, status_in
from extproc.operation import Operation
from extproc.rejection import Rejection, invalid_request

_PATHS = {
    Operation.CHAT: "/v1/chat/completions",
    Operation.COMPLETIONS: "/v1/completions",
    Operation.EMBEDDINGS: "/v1/embeddings",
}
JSON_HEADERS = (("content-type", "application/json"), ("accept-encoding", "identity"))
"""What every translated request needs: the body is ours, and an answer that is compressed can't be read."""

_encode = msgspec.json.Encoder().encode


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Message(msgspec.Struct):
    """A message, or the part of one in a chunk. vLLM calls reasoning by either name."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class _Answer(msgspec.Struct):
    """A chunk or a whole answer of chat completions and completions."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class _Vector(msgspec.Struct):
    embedding: list[float] | str
    index: int = 0


class _Embeddings(msgspec.Struct):
    model: str | None = None
    data: list[_Vector] | None = None
    usage: _Usage | None = None
    error: Any = None


_answers = msgspec.json.Decoder(_Answer)
_embeddings = msgspec.json.Decoder(_Embeddings)


class OpenAiPool:
    """See the module."""

    operations = frozenset(_PATHS)

    def check(self, request: InferenceRequest) -> Rejection | None:
        if isinstance(request, OpenAiRequest):
            return None
        return invalid_request(f"The model `{request.model}` does not serve {request.operation} requests.", "model")

    def encode(self, request: InferenceRequest, model: UpstreamModel) -> UpstreamCall:
        assert isinstance(request, OpenAiRequest), "check() comes first"
        fields = {**request.fields, "model": model.name}
        if request.stream:
            fields["stream_options"] = {**(fields.get("stream_options") or {}), "include_usage": True}
        if request.operation is not Operation.EMBEDDINGS:
            _cap(fields, request.output_limit_tokens or model.default_output_tokens)
            if model.wants_logprobs:
                _ask_for_logprobs(fields, request.operation)
        return UpstreamCall(_PATHS[request.operation], _encode(fields), JSON_HEADERS)

    def decoder(self, request: InferenceRequest, status: int, content_type: str) -> AnswerDecoder:
        if is_error(status):
            return ErrorDecoder(status)
        if is_stream(content_type):
            return SseAnswerDecoder(_Stream(_answer_count(request)))
        if request.operation is Operation.EMBEDDINGS:
            return WholeAnswerDecoder(_read_embeddings)
        return WholeAnswerDecoder(_read_whole)


def _cap(fields: dict[str, Any], limit_tokens: int) -> None:
    """No cap above the limit, and always one. `max_tokens` is the name that every server knows."""
    caps = [name for name in ("max_tokens", "max_completion_tokens") if fields.get(name) is not None]
    for name in caps or ["max_tokens"]:
        fields[name] = min(fields.get(name) or limit_tokens, limit_tokens)


def _ask_for_logprobs(fields: dict[str, Any], operation: Operation) -> None:
    """Of the tokens that were chosen; a client that asks for more gets what it asks for."""
    if operation is Operation.CHAT:
        fields["logprobs"] = True
    elif fields.get("logprobs") is None:
        fields["logprobs"] = 1


def _answer_count(request: InferenceRequest) -> int:
    best_of = request.fields.get("best_of") if isinstance(request, OpenAiRequest) else None
    return request.choices if best_of is None else 1


class _Stream:
    """One streamed answer: chunks, a usage chunk, `[DONE]`."""

    __slots__ = ("_expected", "_finished", "_named")

    def __init__(self, expected_choices: int) -> None:
        self._expected = expected_choices
        self._finished: set[int] = set()
        self._named = False

    def read(self, event: SseEvent) -> Sequence[AnswerEvent]:
        data = event.data
        if data is None:
            return [Opaque(event.raw)]
        if data == b"[DONE]":
            return [Done()]
        chunk = _answers.decode(data)
        if chunk.error is not None:
            return [Failed(rejection_of(status_in(chunk.error), chunk.error))]
        events: list[AnswerEvent] = []
        if not self._named and chunk.model:
            self._named = True
            events.append(Origin(chunk.id or "", chunk.model))
        choices = chunk.choices
        # Several facts in one chunk are separate events, and then none of them owns the bytes.
        raw = event.raw if len(choices or ()) + (chunk.usage is not None) == 1 else None
        for choice in choices or ():
            if choice.finish_reason is not None:
                self._finished.add(choice.index)
            events.append(_delta(choice, choice.delta, raw))
        if chunk.usage is not None:
            events.append(_usage(chunk.usage, raw))
        elif not choices:
            events.append(Opaque(event.raw))
        return events

    def end(self) -> Sequence[AnswerEvent]:
        """Some servers leave out `[DONE]`; an answer whose every choice has finished is complete all the same."""
        if len(self._finished) >= self._expected:
            return [Done()]
        return [failed("The model server's answer ended too early.")]


def _delta(choice: _Choice, message: _Message | None, raw: bytes | None = None) -> Delta:
    if message is None:
        return Delta(choice.index, choice.text or "", "", None, None, choice.logprobs, choice.finish_reason, raw)
    return Delta(
        choice.index,
        message.content or "",
        message.reasoning or message.reasoning_content or "",
        message.role,
        message.tool_calls,
        choice.logprobs,
        choice.finish_reason,
        raw,
        message.refusal or "",
    )


def _usage(usage: _Usage, raw: bytes | None = None) -> Usage:
    details = usage.prompt_tokens_details
    return Usage(usage.prompt_tokens, usage.completion_tokens, None if details is None else details.cached_tokens, raw)


def _read_whole(body: bytes) -> Sequence[AnswerEvent]:
    answer = _answers.decode(body)
    if answer.error is not None:
        return [Failed(rejection_of(status_in(answer.error), answer.error))]
    if not answer.choices:
        return [failed("The model server sent an answer without choices.")]
    parts: list[AnswerEvent] = [_delta(choice, choice.message) for choice in answer.choices]
    if answer.usage is not None:
        parts.append(_usage(answer.usage))
    return [Origin(answer.id or "", answer.model or "", body, tuple(parts)), *parts, Done()]


def _read_embeddings(body: bytes) -> Sequence[AnswerEvent]:
    answer = _embeddings.decode(body)
    if answer.error is not None:
        return [Failed(rejection_of(status_in(answer.error), answer.error))]
    if answer.data is None:
        return [failed("The model server sent an answer without embeddings.")]
    parts: list[AnswerEvent] = [
        Embedding(item.index, None, item.embedding)
        if isinstance(item.embedding, str)
        else Embedding(item.index, item.embedding)
        for item in answer.data
    ]
    if answer.usage is not None:
        parts.append(_usage(answer.usage))
    return [Origin("", answer.model or "", body, tuple(parts)), *parts, Done()]
