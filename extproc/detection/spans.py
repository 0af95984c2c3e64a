"""What a detector finds: a span of text, what it is, and why we think so.

Owns the vocabulary shared by detectors (patterns here, the encoder in `inference/`) and those who act on their finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct


class Evidence(Struct, frozen=True):
    """Why a span was found; names from closed sets only, never text of the span.

    `detector` is `pattern` or `encoder`; `rule` names the pattern, `check` the checksum or structure that held
    (empty: it has none), `context` the context word nearby that raised the confidence (empty: none).
    """

    detector: str
    rule: str
    check: str = ""
    context: str = ""


class Span(Struct, frozen=True):
    """`text[start:end]` (code points) is an `entity` (Presidio's names, `CREDIT_CARD`), with confidence in 0..1."""

    start: int
    end: int
    entity: str
    confidence: float
    evidence: Evidence


class Scanner(Protocol):
    """Finds spans in text."""

    def scan(self, text: str) -> Sequence[Span]:
        """In order of `start`, none overlapping another."""


def merged(kept: Sequence[Span], more: Sequence[Span]) -> Sequence[Span]:
    """Both, in order; `more` only where `kept` has nothing."""
    both: list[Span] = []
    waiting = iter(kept)
    following = next(waiting, None)
    for span in more:
        while following is not None and following.end <= span.start:
            both.append(following)
            following = next(waiting, None)
        if following is None or span.end <= following.start:
            both.append(span)
    if following is not None:
        both.append(following)
    both.extend(waiting)
    return both
