"""Scanning text that comes in pieces: what may be released already, and what is personal in it.

Held back is what a pattern could still extend (`tail.py`), never more than `LONGEST_TOKEN_BYTES`, and what overlaps
with it, never more than `LONGEST_GROUP_BYTES` on top. Released text is remembered only as far as patterns look back.

Overlapping candidates form a group: each begins before the end of those before it. Groups are settled one by one from
left to right, so that it makes no difference where the text was cut. A group ends after `LONGEST_GROUP_BYTES` at the
latest, for text made so that candidates overlap without end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from extproc.detection.patterns.pattern import LONGEST_TOKEN_BYTES
from extproc.detection.spans import Scanner, Span
from extproc.detection.tail import held_from

if TYPE_CHECKING:
    from extproc.detection.scanner import Candidate

LONGEST_GROUP_BYTES = 4096
_CONTINUATION = bytes(range(0x80, 0xC0))
_LOOK_BACK_BYTES = 256
_LOOK_BACK_AFTER_FORCED_BYTES = 2 * LONGEST_TOKEN_BYTES


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


class CandidateSource(Protocol):
    """What a stream asks of its scanner."""

    def candidates(self, data: bytes, floor: int, final: bool) -> list[Candidate]:
        """All in `data` that begins at `floor` or later and counts, in order; `final`: nothing follows `data`."""


class PatternStream:
    """A `TextStream` over a scanner's patterns."""

    def __init__(self, source: CandidateSource) -> None:
        self._source = source
        self._data = b""
        self._released = 0

    def feed(self, piece: str) -> list[Segment]:
        return self.take(piece.encode("utf-8", "surrogatepass"), final=False)

    def close(self) -> list[Segment]:
        return self.take(b"", final=True)

    def take(self, piece: bytes, *, final: bool) -> list[Segment]:
        """As `feed`, and with `final` also `close`; pieces in UTF-8 may end anywhere, also within a character."""
        data = self._data = self._data + piece
        cut = len(data) if final else held_from(data, self._released)
        if cut <= self._released:
            return []
        candidates = self._source.candidates(data, self._released, final)
        winners, end, forced = settle(candidates, self._released, cut)
        end = end if final else character_start(data, end)
        segments = [_segment(data, self._released, end, winners)] if end > self._released else []
        self._forget(end, _LOOK_BACK_AFTER_FORCED_BYTES if forced else _LOOK_BACK_BYTES)
        return segments

    def _forget(self, released: int, look_back: int) -> None:
        dropped = max(0, released - look_back)
        self._data = self._data[dropped:]
        self._released = released - dropped


def settle(candidates: Sequence[Candidate], floor: int, cut: int) -> tuple[list[Candidate], int, bool]:
    """The winners among candidates whose groups lie before `cut`, where these end, and whether a group had to be ended.

    Every candidate that begins before `cut` is known.
    """
    winners: list[Candidate] = []
    position, index, forced = floor, 0, False
    while index < len(candidates):
        first = candidates[index].start
        if first < position:
            index += 1
            continue
        if first >= cut:
            break
        group, index, end = _group(candidates, index)
        limit = first + LONGEST_GROUP_BYTES
        if min(end, limit) > cut or any(candidate.pending for candidate in group):
            return winners, first, forced
        forced = forced or end > limit
        won = _best(group)
        winners += won
        position = max(position, won[-1].end)
    return winners, max(cut, position), forced


def _group(candidates: Sequence[Candidate], index: int) -> tuple[list[Candidate], int, int]:
    """The group that begins at `index`, the index after it, and its end."""
    first = candidates[index]
    group, end = [first], first.end
    limit = first.start + LONGEST_GROUP_BYTES
    index += 1
    while index < len(candidates) and candidates[index].start < min(end, limit):
        group.append(candidates[index])
        end = max(end, candidates[index].end)
        index += 1
    return group, index, end


def _best(group: list[Candidate]) -> list[Candidate]:
    """The most confident, then the longest, that don't overlap; in order."""
    if len(group) == 1:
        return group
    chosen: list[Candidate] = []
    for candidate in sorted(group, key=_rank):
        if all(candidate.end <= other.start or candidate.start >= other.end for other in chosen):
            chosen.append(candidate)
    return sorted(chosen)


def _rank(candidate: Candidate) -> tuple[float, int, int, str]:
    return -candidate.confidence, candidate.start - candidate.end, candidate.start, candidate.rule.name


def _segment(data: bytes, start: int, end: int, winners: list[Candidate]) -> Segment:
    """Bytes to text, positions in bytes to positions in code points."""
    part = data[start:end]
    text = part.decode("utf-8", "surrogatepass")
    spans = []
    byte, point = start, 0
    for found in winners:
        first = point + _points(data, byte, found.start)
        last = first + _points(data, found.start, found.end)
        spans.append(Span(first, last, found.rule.pattern.entity, found.confidence, found.rule.evidence(found.word)))
        byte, point = found.end, last
    return Segment(text, tuple(spans))


def _points(data: bytes, start: int, end: int) -> int:
    return len(data[start:end].translate(None, _CONTINUATION))


def character_start(data: bytes, position: int) -> int:
    """The start of the character that `position` lies in: no cut within one."""
    while 0 < position < len(data) and data[position] & 0xC0 == 0x80:
        position -= 1
    return position
