"""Scanning text that comes in pieces: what may be released already, and what is personal in it.

The interface is here; `scanner.py` gives streams that hold back only what a pattern can still extend.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from extproc.detection.spans import Scanner, Span


class Segment(Struct, frozen=True):
    """Text that may be released, and what was found in it: `spans` count code points from the start of `text`.

    No span crosses a segment. All segments of a stream together are the text that was fed.
    """

    text: str
    spans: tuple[Span, ...]


class TextStream(Protocol):
    """One text in pieces; the spans are those of a scan of the whole text, however it was cut."""

    def feed(self, piece: str) -> list[Segment]:
        """Takes the next piece (any length, empty included); what may be released now, in order, maybe nothing."""

    def close(self) -> list[Segment]:
        """The text has ended: everything that was still held."""


class StreamScanner(Scanner, Protocol):
    """A scanner that can also take a text in pieces."""

    def open(self) -> TextStream:
        """A new stream, independent of every other; not for two threads at once."""


class HoldingStream:
    """Holds everything until the text ends: for scanners that need the whole text."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._pieces: list[str] = []

    def feed(self, piece: str) -> list[Segment]:
        self._pieces.append(piece)
        return []

    def close(self) -> list[Segment]:
        text = "".join(self._pieces)
        self._pieces.clear()
        return [Segment(text, tuple(self._scanner.scan(text)))] if text else []
