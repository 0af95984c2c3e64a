"""A model's answer as a sequence of events, the same whatever dialect it came in.

Decoders of a pool's dialect produce these, response policies read and replace them, encoders of a client API
write them. An event that nobody changed keeps the bytes it came in (`raw`), so that a decoder and an encoder of
the same wire format pass it through untouched; whoever changes an event builds a new one without `raw`. Encoders of
another format than OpenAI's ignore `raw` and `Origin`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from extproc.rejection import Rejection


class Origin(Struct, frozen=True):
    """What the upstream called the answer (its id and model), ahead of the first piece; policies may ignore it.

    An answer that came as one JSON body carries that body and the events read from it (`parts`): if those very
    events reach an encoder of the same wire format, nobody changed anything and the body is sent as it came.
    """

    id: str
    model: str
    body: bytes | None = None
    parts: tuple[AnswerEvent, ...] = ()


class Delta(Struct, frozen=True):
    """One piece of one choice: text, reasoning, tool-call fragments, and the finish reason with the last piece.

    `refusal` is what a model says in place of a text it was to write to a schema. A whole (non-streamed) answer is one
    Delta per choice. `tool_calls` and `logprobs` are the OpenAI chat shapes, decoded. `finish_reason` is OpenAI's:
    stop, length, tool_calls, content_filter.
    """

    index: int = 0
    text: str = ""
    reasoning: str = ""
    role: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None = None
    raw: bytes | None = None
    refusal: str = ""


class Embedding(Struct, frozen=True):
    """One embedding vector, for the input at `index`; floats, or base64 of little-endian float32 when `encoded`."""

    index: int
    vector: list[float] | None = None
    encoded: str | None = None
    raw: bytes | None = None


class Usage(Struct, frozen=True):
    """Tokens as the upstream reports them (cumulative: the last one wins). None: it did not say."""

    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None = None
    raw: bytes | None = None


class Opaque(Struct, frozen=True):
    """Bytes that pass through unread: keep-alive comments, chunks without choices, KServe tensors. Only an encoder of
    the format they came in writes them."""

    raw: bytes


class Failed(Struct, frozen=True):
    """The upstream failed, perhaps after a 200 and some tokens. Nothing follows."""

    rejection: Rejection


class Done(Struct, frozen=True):
    """The answer ended in the way its protocol ends one. Without it the stream was truncated."""


AnswerEvent = Origin | Delta | Embedding | Usage | Opaque | Failed | Done
