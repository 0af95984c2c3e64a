"""Events -> OpenAI's streamed answers, for chat completions and completions.

A piece that nobody changed and that came from an `openai` pool is sent as it came, with the gateway's id and model
name put in. An error after the first byte becomes an event with an `error` object, and the stream ends without a
finish reason or `[DONE]`; OpenAI's clients raise `APIError` when they meet it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from extproc.dialects.answer import AnswerEvent, Delta, Done, Failed, Opaque, Origin, Usage
from extproc.dialects.interface import AnswerIdentity, TokenTotals
from extproc.dialects.openai_wire import Renaming, encode_json, error_body, usage_object
from extproc.operation import Operation

_DONE = b"data: [DONE]\n\n"
_NO_USAGE = b',"usage":null'


class OpenAiStreamEncoder:
    """One streamed answer. Raw bytes of events must be OpenAI's; events of other formats have none."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(
        self, operation: Operation, identity: AnswerIdentity, totals: TokenTotals, *, include_usage: bool
    ) -> None:
        self._chat = operation is Operation.CHAT
        self._identity = identity
        self._totals = totals
        self._include_usage = include_usage
        self._renaming: Renaming | None = None
        self._introduced: set[int] = set()
        self._usage: Usage | None = None
        self._usage_sent = False
        self._over = False
        name = b"chat.completion.chunk" if self._chat else b"text_completion"
        self._head = b'data: {"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            encode_json(identity.id),
            name,
            identity.created_s,
            encode_json(identity.model),
        )
        self._tail = b"]%b}\n\n" % (_NO_USAGE if include_usage else b"")

    def encode(self, events: Sequence[AnswerEvent]) -> bytes:
        return b"".join([self._event(event) for event in events])

    def _event(self, event: AnswerEvent) -> bytes:
        if self._over:
            return b""
        if isinstance(event, Delta):
            return self._delta(event)
        if isinstance(event, Usage):
            return self._keep_usage(event)
        if isinstance(event, Origin):
            self._renaming = Renaming(self._identity, event)
        elif isinstance(event, Opaque):
            return self._raw(event.raw)
        elif isinstance(event, Done):
            self._over = True
            return self._last_usage() + _DONE
        elif isinstance(event, Failed):
            self._over = True
            return b"data: " + error_body(event.rejection) + b"\n\n"
        return b""

    def _raw(self, raw: bytes) -> bytes:
        if not self._include_usage and _NO_USAGE in raw:
            raw = raw.replace(_NO_USAGE, b"", 1)
        return raw if self._renaming is None else self._renaming.apply(raw)

    def _delta(self, delta: Delta) -> bytes:
        if delta.raw is not None:
            if delta.role is not None:
                self._introduced.add(delta.index)
            return self._raw(delta.raw)
        if not self._chat:
            return self._completion(delta)
        introduction = b""
        if delta.index not in self._introduced:
            self._introduced.add(delta.index)
            introduction = self._choice(delta.index, b'"delta":{"role":"assistant","content":""}', None, b"null")
        body = self._delta_body(delta)
        if body == b"{}" and delta.finish_reason is None and delta.logprobs is None:
            return introduction
        logprobs = b"null" if delta.logprobs is None else encode_json(delta.logprobs)
        return introduction + self._choice(delta.index, b'"delta":' + body, delta.finish_reason, logprobs)

    @staticmethod
    def _delta_body(delta: Delta) -> bytes:
        if not delta.reasoning and delta.tool_calls is None and not delta.refusal:
            return b'{"content":%b}' % encode_json(delta.text) if delta.text else b"{}"
        body: dict[str, Any] = {}
        if delta.reasoning:
            body["reasoning_content"] = delta.reasoning
        if delta.text:
            body["content"] = delta.text
        if delta.refusal:
            body["refusal"] = delta.refusal
        if delta.tool_calls is not None:
            body["tool_calls"] = [{"index": index, **call} for index, call in enumerate(delta.tool_calls)]
        return encode_json(body)

    def _completion(self, delta: Delta) -> bytes:
        if not delta.text and delta.finish_reason is None and delta.logprobs is None:
            return b""
        logprobs = b"null" if delta.logprobs is None else encode_json(delta.logprobs)
        return self._choice(delta.index, b'"text":' + encode_json(delta.text), delta.finish_reason, logprobs)

    def _choice(self, index: int, content: bytes, finish_reason: str | None, logprobs: bytes) -> bytes:
        finish = b"null" if finish_reason is None else encode_json(finish_reason)
        return b'%b{"index":%d,%b,"logprobs":%b,"finish_reason":%b}%b' % (
            self._head,
            index,
            content,
            logprobs,
            finish,
            self._tail,
        )

    def _keep_usage(self, usage: Usage) -> bytes:
        self._usage = usage
        if usage.raw is None or not self._include_usage:
            return b""
        self._usage_sent = True
        return self._raw(usage.raw)

    def _last_usage(self) -> bytes:
        if not self._include_usage or self._usage_sent:
            return b""
        usage = encode_json(usage_object(self._usage, self._totals))
        return b'%b],"usage":%b}\n\n' % (self._head, usage)
