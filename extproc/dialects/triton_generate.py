"""The `triton-generate` dialect: `/v2/models/M/generate` and `/generate_stream`, as Triton's vLLM backend takes them.

Owns the translation of OpenAI's parameters into `sampling_parameters` and the reading of an answer that has no
`[DONE]`, can fail after a 200, and gives `text_output` and `num_output_tokens` as increments. What the backend
can't carry is refused, never dropped: a parameter is sent, known to be harmless, or a 400.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from extproc.dialects.answer import AnswerEvent, Delta, Done, Failed, Usage
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
from extproc.dialects.openai_pool import JSON_HEADERS
from extproc.dialects.openai_requests import ChatRequest, CompletionRequest, OpenAiRequest, inputs_of
from extproc.dialects.sse import SseEvent
from extproc.dialects.upstream_errors import triton_rejection
from extproc.operation import Operation
from extproc.rejection import Rejection, invalid_request

_SAMPLING = frozenset(
    {
        "temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty",
        "top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos", "stop_token_ids",
    }
)  # fmt: skip
"""OpenAI's parameters that vLLM's SamplingParams know by the same name, then vLLM's own."""

_ELSEWHERE = frozenset(
    {"model", "messages", "prompt", "stream", "stream_options", "max_tokens", "max_completion_tokens"}
)
_HARMLESS = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls",
        "prompt_cache_retention", "reasoning_effort", "verbosity",
    }
)  # fmt: skip
"""Labels for the provider and hints: an answer without them is still the answer asked for."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "logit_bias": ({},),
}
"""Values that ask for nothing special."""

_MOST_TOKENS = 1 << 20
"""Of one piece: what a broken server may make us write down."""

_encode = msgspec.json.Encoder().encode


class _Event(msgspec.Struct):
    """A response. A tensor of one element is a scalar; `finish_reason` is the string "None" until the end."""

    text_output: str | None = None
    finish_reason: str | None = None
    num_input_tokens: int | None = None
    num_output_tokens: int | None = None
    cached_tokens: int | None = None
    cumulative_logprob: float | None = None
    error: Any = None


_events = msgspec.json.Decoder(_Event)


class TritonGeneratePool:
    """See the module."""

    operations = frozenset({Operation.CHAT, Operation.COMPLETIONS})

    def check(self, request: InferenceRequest) -> Rejection | None:
        if not isinstance(request, ChatRequest | CompletionRequest):
            message = f"The model `{request.model}` does not serve {request.operation} requests."
            return invalid_request(message, "model")
        return _unsupported_parameter(request) or _unsupported_input(request)

    def encode(self, request: InferenceRequest, model: UpstreamModel) -> UpstreamCall:
        assert isinstance(request, ChatRequest | CompletionRequest), "check() comes first"
        sampling = {name: value for name, value in request.fields.items() if name in _SAMPLING and value is not None}
        sampling["max_tokens"] = request.output_limit_tokens or model.default_output_tokens
        if model.wants_logprobs:
            sampling["logprobs"] = 1  # without it vLLM adds none up
        body: dict[str, Any] = {
            "text_input": _prompt(request, model),
            "stream": request.stream,
            "sampling_parameters": _encode(sampling).decode(),
            # Without it vLLM's backend puts the prompt in front of an answer that is not streamed.
            "exclude_input_in_output": True,
            "return_finish_reason": True,
            "return_num_input_tokens": True,
            "return_num_output_tokens": True,
        }
        if model.wants_logprobs:
            body["return_cumulative_logprob"] = True
        verb = "generate_stream" if request.stream else "generate"
        return UpstreamCall(f"/v2/models/{quote(model.name, safe='')}/{verb}", _encode(body), JSON_HEADERS)

    def decoder(self, request: InferenceRequest, status: int, content_type: str) -> AnswerDecoder:
        if is_error(status):
            return ErrorDecoder(status, triton_rejection)
        if is_stream(content_type):
            return SseAnswerDecoder(_Stream())
        return WholeAnswerDecoder(_read_whole)


def _prompt(request: OpenAiRequest, model: UpstreamModel) -> str:
    if isinstance(request, CompletionRequest):
        prompt: str = inputs_of(request.fields["prompt"])[0]
        return prompt
    assert model.render_chat is not None, "a chat model of a triton-generate pool has a template"
    return model.render_chat(request)


def _unsupported_parameter(request: OpenAiRequest) -> Rejection | None:
    for name, value in request.fields.items():
        if value is None or name in _SAMPLING or name in _ELSEWHERE or name in _HARMLESS:
            continue
        # `1 == True`: the type must be right, too.
        if any(value == neutral and type(value) is type(neutral) for neutral in _NEUTRAL.get(name, ())):
            continue
        if name == "response_format" and value.get("type") == "text":
            continue
        return invalid_request(
            f"The parameter '{name}' is not supported with the model `{request.model}`.",
            name,
            "unsupported_parameter",
        )
    return None


def _unsupported_input(request: OpenAiRequest) -> Rejection | None:
    if isinstance(request, CompletionRequest):
        prompts = inputs_of(request.fields["prompt"])
        if len(prompts) == 1 and isinstance(prompts[0], str):
            return None
        return invalid_request(
            f"The model `{request.model}` takes one prompt, as a string.", "prompt", "unsupported_value"
        )
    for index, message in enumerate(request.fields["messages"]):
        content = message.get("content")
        for position, part in enumerate(content if isinstance(content, list) else ()):
            if part["type"] not in ("text", "refusal"):
                return invalid_request(
                    f"The model `{request.model}` does not take `{part['type']}` content.",
                    f"messages[{index}].content[{position}].type",
                    "unsupported_value",
                )
    return None


class _Stream:
    """One streamed answer: increments of text until one of them has a finish reason."""

    __slots__ = ("_completion_tokens", "_finished", "_last", "_logprob")

    def __init__(self) -> None:
        self._logprob = 0.0
        self._completion_tokens: int | None = None
        self._last = _Event()
        self._finished = False

    def read(self, event: SseEvent) -> Sequence[AnswerEvent]:
        if event.data is None:
            return ()
        piece = _events.decode(event.data)
        if piece.error is not None:
            return [self._usage(), Failed(triton_rejection(500, {"error": piece.error}))]
        if piece.num_output_tokens is not None:
            self._completion_tokens = (self._completion_tokens or 0) + piece.num_output_tokens
        self._last = piece
        finish_reason = _finish_reason(piece)
        text = piece.text_output or ""
        logprobs = self._logprobs(piece)
        if finish_reason is None:
            return [Delta(0, text, logprobs=logprobs)] if text or logprobs else ()
        self._finished = True
        return [Delta(0, text, logprobs=logprobs, finish_reason=finish_reason), self._usage()]

    def _logprobs(self, piece: _Event) -> dict[str, Any] | None:
        """The server tells one sum, of all tokens until now: each of the new ones gets its share of what is new. In
        OpenAI's shape, for the gateway alone: no client can ask for them in this dialect."""
        total, tokens = piece.cumulative_logprob, piece.num_output_tokens
        if total is None or not tokens:
            return None
        mean, self._logprob = (total - self._logprob) / tokens, total
        return {"content": [{"logprob": mean}] * min(tokens, _MOST_TOKENS)}

    def end(self) -> Sequence[AnswerEvent]:
        if self._finished:
            return [Done()]
        return [self._usage(), failed("The model server's answer ended too early.")]

    def _usage(self) -> Usage:
        return Usage(self._last.num_input_tokens, self._completion_tokens, self._last.cached_tokens)


def _read_whole(body: bytes) -> Sequence[AnswerEvent]:
    stream = _Stream()
    events = list(stream.read(SseEvent(body, None, b"")))
    if events and isinstance(events[-1], Failed):
        return events
    return [*events, *stream.end()]


def _finish_reason(piece: _Event) -> str | None:
    """vLLM's reasons are OpenAI's, save `abort`: the server gave up on the request."""
    reason = piece.finish_reason
    if reason in (None, "", "None"):
        return None
    if reason == "abort":
        raise ValueError("the server aborted the request")
    return reason
