"""One scanner for all patterns of a selection: a single hyperscan database, for whole texts and for streams.

Theory of operation. hyperscan reports where expressions match and where words of context stand. Each match becomes a
candidate if what stands around it allows it and its check holds. A word of context within `CONTEXT_BEFORE_BYTES`
before a match raises its confidence; if it would otherwise be too low to count, so does one within
`CONTEXT_AFTER_BYTES` after it. Where candidates overlap, the most confident wins, then the longest (`stream.py`). All
of this looks only a bounded way around a match, so that a stream finds exactly what a scan of the whole text finds.
"""

from __future__ import annotations

import re
import string
from operator import attrgetter
from typing import NamedTuple

from msgspec import Struct

from extproc.detection.compiled import CompiledPatterns, Matches, Rule
from extproc.detection.database import Keep
from extproc.detection.patterns import REGIONS
from extproc.detection.patterns.pattern import Form, Pattern
from extproc.detection.spans import Span
from extproc.detection.stream import PatternStream, character_start

CONTEXT_BEFORE_BYTES = 96
CONTEXT_AFTER_BYTES = 32

NOT_PERSONAL = frozenset({"DATE_TIME", "URL"})
"""What is looked for only when asked for by name: by itself it tells nothing about anybody."""

_BLOCK_BYTES = 1 << 16
_SEPARATORS = b" -./:()"
_PART_OF_LONGER_BEFORE = re.compile(rb"[0-9][.:/-]\Z|\b[0-9A-Fa-f]{4}-\Z")
_PART_OF_LONGER_AFTER = re.compile(rb"[.:/-][0-9]|-[0-9A-Fa-f]{4}-|[@]")
_GROUP_BEFORE = re.compile(rb"[0-9][ ]\Z")
_JOINING_BEFORE = frozenset(b" .:/-_" + string.digits.encode() + string.ascii_letters.encode())
_JOINING_AFTER = frozenset({b".", b":", b"/", b"-", b"@"})
_PART_OF_ADDRESS_BEFORE = re.compile(rb"[0-9A-Za-z_]\Z|(?:\A|[^g-zG-Z]):\Z|[0-9]\.\Z")
_LAST_GROUP = re.compile(rb"[ ./-]+[0-9A-Za-z()]+\Z")
_START = attrgetter("start")


class Selection(Struct, frozen=True):
    """What to look for: `entities` empty means all but `NOT_PERSONAL`, `regions` empty all.

    What is less confident than `threshold` is no span.
    """

    entities: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    threshold: float = 0.4


class Candidate(NamedTuple):
    """`data[start:end]` may be an entity. `pending`: what follows may still make it count."""

    start: int
    end: int
    confidence: float
    rule: Rule
    word: str
    pending: bool


class PatternScanner:
    """Finds what the selected patterns describe. Compiling takes seconds; scanning is thread-safe."""

    def __init__(self, compiled: CompiledPatterns, threshold: float) -> None:
        self._compiled = compiled
        self._threshold = threshold

    @classmethod
    def compile(cls, selection: Selection, keep: Keep | None = None) -> PatternScanner:
        """Raises ValueError for an entity or region that no pattern has."""
        return cls(CompiledPatterns(selected(selection), keep), selection.threshold)

    def scan(self, text: str) -> tuple[Span, ...]:
        stream = PatternStream(self)
        data = text.encode("utf-8", "surrogatepass")
        segments = []
        for at in range(0, len(data), _BLOCK_BYTES):
            segments += stream.take(data[at : at + _BLOCK_BYTES], final=at + _BLOCK_BYTES >= len(data))
        if len(segments) == 1:
            return segments[0].spans
        found: list[Span] = []
        offset = 0
        for segment in segments:
            found += (Span(s.start + offset, s.end + offset, s.entity, s.confidence, s.evidence) for s in segment.spans)
            offset += len(segment.text)
        return tuple(found)

    def open(self) -> PatternStream:
        return PatternStream(self)

    def candidates(self, data: bytes, floor: int, final: bool) -> list[Candidate]:
        """All in `data` that begins at `floor` or later and counts, in order; `final`: nothing follows `data`."""
        matches = self._compiled.search(data)
        result: list[Candidate] = []
        seen: set[tuple[int, int]] = set()
        for identity, start, end in matches.found:
            rules = self._compiled.rules[identity]
            if rules[0].whole is not None:
                if (identity, start) in seen:
                    continue
                seen.add((identity, start))
            elif start < floor:
                continue
            near: _Near | None = None
            for rule in rules:
                if rule.alone < self._threshold:
                    near = near or self._near(matches, start, end, len(data), final)
                    # Most matches end here: any number of that length, and no word to say what it is.
                    if not rule.group & near.groups:
                        continue
                extent = _extent(data, rule, start, end)
                if extent is None or extent[0] < floor:
                    continue
                near = near or self._near(matches, start, end, len(data), final)
                if candidate := self._candidate(rule, extent, near):
                    result.append(candidate)
        result.sort(key=_START)
        return result

    def _near(self, matches: Matches, start: int, end: int, size: int, final: bool) -> _Near:
        return _Near(matches, start, end, pending=not final and end + CONTEXT_AFTER_BYTES + 2 > size)

    def _candidate(self, rule: Rule, extent: tuple[int, int], near: _Near) -> Candidate | None:
        low = rule.alone < self._threshold
        backed = (near.known if low else near.before) & rule.group != 0
        pending = low and near.pending and not near.before & rule.group
        confidence = rule.backed if backed or pending else rule.alone
        if confidence < self._threshold or confidence == 0:
            return None
        word = near.word(rule.group) if backed else ""
        return Candidate(extent[0], extent[1], confidence, rule, word, pending)


class _Near:
    """The words of context around a match, as bits of their groups.

    `before` it, `known` before and after it, `groups` those that may count: all, while the text after isn't there yet.
    """

    __slots__ = ("_matches", "before", "end", "groups", "known", "pending", "start")

    def __init__(self, matches: Matches, start: int, end: int, *, pending: bool) -> None:
        self._matches = matches
        self.start, self.end, self.pending = start, end, pending
        self.before, after = matches.around(start, end, CONTEXT_BEFORE_BYTES, CONTEXT_AFTER_BYTES)
        self.known = self.before | after
        self.groups = -1 if pending else self.known

    def word(self, group: int) -> str:
        """The nearest word before the match; none there, one after it."""
        if self.before & group:
            return self._matches.word(group, self.start - CONTEXT_BEFORE_BYTES, self.start)
        return self._matches.word(group, self.end, self.end + CONTEXT_AFTER_BYTES)


def selected(selection: Selection) -> list[tuple[str, Pattern]]:
    """The patterns of a selection with their regions. Raises ValueError for an entity or region that no pattern has."""
    known = {pattern.entity for patterns in REGIONS.values() for pattern in patterns}
    if unknown := sorted(selection.entities - known) + sorted(selection.regions - set(REGIONS)):
        raise ValueError(f"no pattern for {', '.join(unknown)}")
    return [
        (region, pattern)
        for region, patterns in REGIONS.items()
        for pattern in patterns
        if region in (selection.regions or REGIONS)
        and (pattern.entity in selection.entities if selection.entities else pattern.entity not in NOT_PERSONAL)
    ]


def _extent(data: bytes, rule: Rule, start: int, end: int) -> tuple[int, int] | None:
    """Where the match really ends, if what stands around it and its check allow it."""
    form, whole = rule.form, rule.whole
    if form is not Form.TEXT and not _may_begin(data, start, form):
        return None
    if whole is not None:
        match = whole.match(data, start)
        if match is None:
            return None
        start, end = match.span(rule.value)
        end = character_start(data, end)
    number = form is Form.NUMBER or form is Form.RUN
    if number and data[end : end + 1] in _JOINING_AFTER and _PART_OF_LONGER_AFTER.match(data, end):
        return None
    while not _holds(rule, data[start:end], number):
        shorter = _LAST_GROUP.search(data, start, end) if whole is not None and number else None
        if shorter is None:
            return None
        end = shorter.start()
    return start, end


def _may_begin(data: bytes, start: int, form: Form) -> bool:
    """Most text before a match is harmless at a glance; only what may join it is looked at closely."""
    if start == 0 or data[start - 1] not in _JOINING_BEFORE:
        return True
    before = data[max(0, start - 6) : start]
    if form is Form.ADDRESS:
        return not _PART_OF_ADDRESS_BEFORE.search(before)
    return not (_PART_OF_LONGER_BEFORE.search(before) or (form is Form.RUN and _GROUP_BEFORE.search(before)))


def _holds(rule: Rule, found: bytes, number: bool) -> bool:
    if rule.check is None:
        return True
    text = (
        found.translate(None, _SEPARATORS).decode("utf-8", "replace").upper()
        if number
        else found.decode("utf-8", "replace")
    )
    return text != "" and rule.check.holds(text)
