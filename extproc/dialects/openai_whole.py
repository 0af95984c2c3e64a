"""Events -> OpenAI's answers in one JSON body: chat completions, completions, embeddings.

The pieces of a streamed answer are joined; a body that came whole and that nobody changed is sent as it came, with
the gateway's id and model name put in.
"""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from collections.abc import Sequence
from typing import Any

from extproc.dialects.answer import AnswerEvent, Delta, Done, Embedding, Failed, Origin, Usage
from extproc.dialects.interface import AnswerIdentity, TokenTotals
from extproc.dialects.openai_wire import (
    Renaming,
    encode_json,
    error_body,
    merge_logprobs,
    merge_tool_calls,
    usage_object,
)
from extproc.operation import Operation


class OpenAiWholeEncoder:
    """One answer, sent when it is complete. `base64_vectors`: how embeddings are written."""

    content_type = "application/json"

    def __init__(
        self,
        operation: Operation,
        identity: AnswerIdentity,
        totals: TokenTotals,
        *,
        base64_vectors: bool = False,
    ) -> None:
        self._operation = operation
        self._identity = identity
        self._totals = totals
        self._base64_vectors = base64_vectors
        self._origin: Origin | None = None
        self._parts: list[AnswerEvent] = []
        self._over = False

    def encode(self, events: Sequence[AnswerEvent]) -> bytes:
        for event in events:
            if self._over:
                break
            if isinstance(event, Origin):
                self._origin = event
            elif isinstance(event, Delta | Usage | Embedding):
                self._parts.append(event)
            elif isinstance(event, Failed):
                self._over = True
                return error_body(event.rejection)
            elif isinstance(event, Done):
                self._over = True
                return self._untouched() or self._body()
        return b""

    def _untouched(self) -> bytes | None:
        origin = self._origin
        if origin is None or origin.body is None or len(origin.parts) != len(self._parts):
            return None
        if any(came is not left for came, left in zip(origin.parts, self._parts, strict=True)):
            return None
        if not any(isinstance(part, Usage) for part in self._parts):
            return None
        if self._operation is Operation.EMBEDDINGS and not self._vectors_fit():
            return None
        return Renaming(self._identity, origin).apply(origin.body)

    def _vectors_fit(self) -> bool:
        vectors = (part for part in self._parts if isinstance(part, Embedding))
        return all((part.encoded is not None) is self._base64_vectors for part in vectors)

    def _body(self) -> bytes:
        usages = [part for part in self._parts if isinstance(part, Usage)]
        usage = usage_object(usages[-1] if usages else None, self._totals)
        if self._operation is Operation.EMBEDDINGS:
            return self._embeddings(usage)
        chat = self._operation is Operation.CHAT
        return encode_json(
            {
                "id": self._identity.id,
                "object": "chat.completion" if chat else "text_completion",
                "created": self._identity.created_s,
                "model": self._identity.model,
                "choices": [(_chat_choice if chat else _text_choice)(choice) for choice in self._choices()],
                "usage": usage,
            }
        )

    def _choices(self) -> list[_Joined]:
        joined: dict[int, _Joined] = {}
        for part in self._parts:
            if isinstance(part, Delta):
                joined.setdefault(part.index, _Joined(part.index)).add(part)
        return [joined[index] for index in sorted(joined)]

    def _embeddings(self, usage: dict[str, Any]) -> bytes:
        vectors = sorted((part for part in self._parts if isinstance(part, Embedding)), key=lambda part: part.index)
        return encode_json(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": part.index, "embedding": self._vector(part)} for part in vectors
                ],
                "model": self._identity.model,
                "usage": {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["prompt_tokens"]},
            }
        )

    def _vector(self, part: Embedding) -> str | list[float]:
        if self._base64_vectors:
            return part.encoded if part.encoded is not None else pack_vector(part.vector or [])
        return part.vector if part.vector is not None else unpack_vector(part.encoded or "")


class _Joined:
    """One choice, put together from its pieces."""

    __slots__ = ("finish_reason", "index", "logprobs", "reasoning", "refusals", "texts", "tool_calls")

    def __init__(self, index: int) -> None:
        self.index = index
        self.texts: list[str] = []
        self.reasoning: list[str] = []
        self.refusals: list[str] = []
        self.tool_calls: list[dict[str, Any]] = []
        self.logprobs: dict[str, Any] | None = None
        self.finish_reason: str | None = None

    def add(self, delta: Delta) -> None:
        self.texts.append(delta.text)
        self.reasoning.append(delta.reasoning)
        self.refusals.append(delta.refusal)
        if delta.tool_calls:
            merge_tool_calls(self.tool_calls, delta.tool_calls)
        if delta.logprobs is not None:
            self.logprobs = merge_logprobs(self.logprobs, delta.logprobs)
        self.finish_reason = delta.finish_reason or self.finish_reason


def _chat_choice(choice: _Joined) -> dict[str, Any]:
    text, reasoning, refusal = ("".join(said) for said in (choice.texts, choice.reasoning, choice.refusals))
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if not text and (choice.tool_calls or refusal) else text,
        "refusal": refusal or None,
    }
    if reasoning:
        message["reasoning_content"] = reasoning
    if choice.tool_calls:
        message["tool_calls"] = choice.tool_calls
    return {
        "index": choice.index,
        "message": message,
        "logprobs": choice.logprobs,
        "finish_reason": choice.finish_reason,
    }


def _text_choice(choice: _Joined) -> dict[str, Any]:
    return {
        "index": choice.index,
        "text": "".join(choice.texts),
        "logprobs": choice.logprobs,
        "finish_reason": choice.finish_reason,
    }


def pack_vector(vector: list[float]) -> str:
    """Base64 of little-endian float32, as OpenAI's `encoding_format: base64`."""
    packed = array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode()


def unpack_vector(encoded: str) -> list[float]:
    """The reverse. Raises ValueError."""
    packed = array("f")
    try:
        packed.frombytes(base64.b64decode(encoded, validate=True))
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tolist()
