"""An answer as it is kept: its events, without an upstream's bytes, and its tokens, as bytes and back.

Owns which answers can be kept: whole ones, whose every choice ended by itself. Must not know: where they are kept, or
under what name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs

from extproc.dialects.answer import AnswerEvent, Delta, Done, Embedding
from extproc.dialects.interface import TokenTotals

_BY_ITSELF = frozenset({"stop", "tool_calls"})
_PIECE_BYTES = 16


class StoredDelta(Delta, frozen=True, omit_defaults=True, tag="d", tag_field="t"):
    """Every field of Delta, those that are added later too."""


class StoredEmbedding(Embedding, frozen=True, omit_defaults=True, tag="e", tag_field="t"):
    """Every field of Embedding."""


StoredEvent = StoredDelta | StoredEmbedding


class Kept(Struct, frozen=True, array_like=True):
    """An answer: its pieces as they came, and its tokens as the client was told them."""

    events: list[StoredEvent]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    @property
    def replayed(self) -> tuple[AnswerEvent, ...]:
        """The events that an encoder of any client API writes."""
        return (*self.events, Done())

    @property
    def totals(self) -> TokenTotals:
        return TokenTotals(self.prompt_tokens, self.completion_tokens, self.cached_tokens)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Kept)


def decode(body: bytes) -> Kept:
    """Raises ValueError for bytes that are no kept answer."""
    return _decoder.decode(body)


def encode(events: Sequence[StoredEvent], totals: TokenTotals) -> bytes:
    return _encoder.encode(Kept(list(events), totals.prompt_tokens, totals.completion_tokens, totals.cached_tokens))


class Collected:
    """An answer in the making, as the client gets it. It keeps no more than about `limit_bytes`."""

    __slots__ = ("_done", "_finished", "_limit_bytes", "_seen", "_spoilt", "events")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._done = False
        self._spoilt = False
        self.events: list[StoredEvent] = []

    @property
    def is_whole(self) -> bool:
        """Every choice ended by itself: not by a cap, a filter or a failure; and all of it is here."""
        return self._done and not self._spoilt and self._seen == self._finished and bool(self.events)

    def add(self, events: Sequence[AnswerEvent]) -> None:
        for event in events:
            self._done = self._done or type(event) is Done
            if not self._spoilt and isinstance(event, Delta | Embedding):
                self._add(event)

    def _add(self, event: Delta | Embedding) -> None:
        if isinstance(event, Delta):
            self._seen.add(event.index)
            if event.finish_reason in _BY_ITSELF:
                self._finished.add(event.index)
            self._spoilt = event.finish_reason is not None and event.finish_reason not in _BY_ITSELF
        fields = structs.asdict(event)
        fields["raw"] = None
        self.events.append(StoredDelta(**fields) if isinstance(event, Delta) else StoredEmbedding(**fields))
        self._limit_bytes -= _size(event)
        if self._limit_bytes < 0 or self._spoilt:
            self._spoilt = True
            self.events.clear()


def _size(event: Delta | Embedding) -> int:
    """About as many bytes as it will take, and no more."""
    if isinstance(event, Embedding):
        return len(event.encoded or "") + 9 * len(event.vector or ())
    held: tuple[Any, ...] = (event.tool_calls, event.logprobs)
    return _PIECE_BYTES + len(event.text) + len(event.reasoning) + sum(len(_encoder.encode(one)) for one in held if one)
