"""Names in answers: the encoder reads a text piece by piece, so that a stream and a whole answer are judged alike.

Owns how much of an answer the encoder reads, and what becomes of it when the encoder fails. Must not know: any wire
format, nor how a find is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from extproc.detection.pieces import Pieces
from extproc.detection.placeholders import outside_placeholders
from extproc.detection.spans import merged
from extproc.detection.stream import Segment
from extproc.errors import DependencyError
from extproc.inference.interface import Encoder, Encoding
from extproc.policies.redact_exchange import Rules
from extproc.policies.scan import Scanned, Window

_TOGETHER_WINDOWS = 8
"""Windows given to the encoder together, within one deadline: a long answer takes long, and that is no failure."""


class NameSearch(Struct, frozen=True):
    """How names are looked for. A name counts from `least_confidence` on; of each text `budget_windows` are read."""

    encoder: Encoder
    rules: Rules
    least_confidence: float
    piece_chars: int
    budget_windows: int
    deadline_s: float


class AnswerNames:
    """Those of one exchange. `lost` is told that the encoder failed: it raises, or the rest goes on without names."""

    __slots__ = ("_lost", "_search", "available", "partly_read")

    def __init__(self, search: NameSearch, lost: Callable[[DependencyError], None]) -> None:
        self._search = search
        self._lost = lost
        self.available = True
        self.partly_read = False

    def open(self) -> TextNames:
        return TextNames(self, self._search)

    async def encode(self, texts: Sequence[str]) -> Sequence[Encoding] | None:
        """None once the encoder was lost."""
        found: list[Encoding] = []
        for first in range(0, len(texts), _TOGETHER_WINDOWS):
            if not self.available:
                return None
            try:
                together = texts[first : first + _TOGETHER_WINDOWS]
                found += await self._search.encoder.encode(together, self._search.deadline_s)
            except DependencyError as error:
                self.available = False
                self._lost(error)
        return found if self.available else None


class TextNames:
    """One text's, behind the search for patterns: takes its segments, gives them back as pieces with their names."""

    __slots__ = ("_exchange", "_left", "_pieces", "_search")

    def __init__(self, exchange: AnswerNames, search: NameSearch) -> None:
        self._exchange = exchange
        self._search = search
        self._left = search.budget_windows
        self._pieces = Pieces(search.piece_chars)

    async def add(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """What has been read and may be released."""
        return await self._read(self._pieces.add(segments))

    async def finish(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """The last segments, and what was held of those before."""
        return await self._read([*self._pieces.add(segments), *self._pieces.finish()])

    async def _read(self, pieces: Sequence[Segment]) -> Sequence[Segment]:
        windows = [self._windows(piece.text) for piece in pieces]
        texts = [piece.text[start:end] for piece, ranges in zip(pieces, windows, strict=True) for start, end in ranges]
        encodings = await self._exchange.encode(texts) if texts else ()
        if encodings is None:
            return pieces
        following = iter(encodings)
        return [
            self._named(piece, [Window(start, end, next(following)) for start, end in ranges])
            for piece, ranges in zip(pieces, windows, strict=True)
        ]

    def _windows(self, text: str) -> Sequence[tuple[int, int]]:
        """What the encoder is to read of a piece: all, or nothing where there is nothing or the budget is spent."""
        if text.isspace():
            return ()
        ranges = self._search.encoder.windows(text)
        if len(ranges) > self._left:
            self._left = 0
            self._exchange.partly_read = True
            return ()
        self._left -= len(ranges)
        return ranges

    def _named(self, piece: Segment, windows: Sequence[Window]) -> Segment:
        if not windows:
            return piece
        rules, least = self._search.rules, self._search.least_confidence
        found = [span for span in Scanned(tuple(windows), len(windows)).spans() if span.confidence >= least]
        names = outside_placeholders(piece.text, rules.acted(found))
        return Segment(piece.text, tuple(merged(rules.acted(piece.spans), names))) if names else piece
