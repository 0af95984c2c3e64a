"""An encoder whose answers a test can foresee, and hold back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from extproc.detection.spans import Evidence, Span
from extproc.errors import DependencyError
from extproc.inference.interface import Encoding

_WIDTH, _STEP = 10, 8


class Scripted:
    """An encoder with windows of ten code points that overlap by two. It finds `Bob` and notes what it was given."""

    def __init__(self, error: DependencyError | None = None) -> None:
        self.given: list[str] = []
        self.deadlines: list[float] = []
        self.cancelled = 0
        self.open = asyncio.Event()
        self.open.set()
        self._error = error

    def windows(self, text: str) -> Sequence[tuple[int, int]]:
        starts = range(0, max(len(text) - (_WIDTH - _STEP), 1), _STEP) if text else range(0)
        return [(start, min(start + _WIDTH, len(text))) for start in starts]

    async def encode(self, texts: Sequence[str], deadline_s: float) -> Sequence[Encoding]:
        self.given += texts
        self.deadlines.append(deadline_s)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self._error is not None:
            raise self._error
        return [Encoding(text.encode(), injection=float("bad" in text), spans=_bobs(text)) for text in texts]


def _bobs(text: str) -> tuple[Span, ...]:
    at = text.find("Bob")
    return (Span(at, at + 3, "PERSON", 0.9, Evidence("encoder", "entity_head")),) if at >= 0 else ()
