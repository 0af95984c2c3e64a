"""An answer as it is kept: its events, without an upstream's bytes, and its tokens, as bytes and back.

Owns which answers can be kept: whole ones, whose every choice ended by itself. Must not know: where they are kept, or
under what name.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct, structs

from extproc.dialects.answer import AnswerEvent, Delta, Done, Embedding
from extproc.dialects.interface import TokenTotals
from extproc.policies.interface import Answer

_WHOLE = frozenset({"stop", "tool_calls"})
_RAW = "raw"


class _Delta(Delta, frozen=True, omit_defaults=True, tag="d", tag_field="t"):  # type: ignore[call-arg]
    """Every field of Delta, those that are added later too."""


class _Embedding(Embedding, frozen=True, omit_defaults=True, tag="e", tag_field="t"):  # type: ignore[call-arg]
    """Every field of Embedding."""


_Event = _Delta | _Embedding
_KEPT: dict[type, type[_Delta] | type[_Embedding]] = {Delta: _Delta, Embedding: _Embedding}


class Kept(Struct, frozen=True, array_like=True):
    """An answer: its pieces as they came, and its tokens as the client was told them."""

    events: list[_Event]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Kept)


def is_whole(events: Sequence[AnswerEvent]) -> bool:
    """Every choice ended by itself: not by a cap, by a filter or by a failure."""
    open_choices: set[int] = set()
    ended = False
    for event in events:
        if isinstance(event, Delta):
            open_choices.add(event.index)
            if event.finish_reason is not None and event.finish_reason not in _WHOLE:
                return False
        ended = ended or type(event) is Done
    finished = {event.index for event in events if isinstance(event, Delta) and event.finish_reason in _WHOLE}
    return ended and open_choices == finished


def encode(events: Sequence[AnswerEvent], totals: TokenTotals) -> bytes:
    """The bytes to keep of an answer that `is_whole`."""
    kept: list[_Event] = []
    for event in events:
        own = _KEPT.get(type(event))
        if own is not None:
            fields = structs.asdict(event)  # type: ignore[arg-type]
            fields[_RAW] = None
            kept.append(own(**fields))
    return _encoder.encode(Kept(kept, totals.prompt_tokens, totals.completion_tokens, totals.cached_tokens))


def decode(body: bytes, age_s: float) -> Answer:
    """The verdict that replays what was kept. Raises ValueError for bytes that are no answer."""
    kept = _decoder.decode(body)
    totals = TokenTotals(kept.prompt_tokens, kept.completion_tokens, kept.cached_tokens)
    return Answer((*kept.events, Done()), totals, age_s)
