"""One scanner for all patterns of a selection: a single hyperscan database, for whole texts and for streams.

Theory of operation. hyperscan reports where expressions match and where words of context stand. Each match becomes a
candidate if what stands around it allows it and its check holds. A word of context within `CONTEXT_BEFORE_BYTES` before a
match raises its confidence; if it would otherwise be too low to count, so does one within `CONTEXT_AFTER_BYTES` after it.
Where candidates overlap, the most confident wins, then the longest (`stream.py`). All of this looks only a bounded way around
a match, so that a stream finds exactly what a scan of the whole text finds.
"""

from __future__ import annotations

import re
from operator import attrgetter
from typing import NamedTuple

from msgspec import Struct

from extproc.detection.compiled import CompiledPatterns, Matches, Rule
from extproc.detection.patterns import REGIONS
from extproc.detection.patterns.pattern import Form, Pattern
from extproc.detection.spans import Span
from extproc.detection.stream import PatternStream, character_start

CONTEXT_BEFORE_BYTES = 96
CONTEXT_AFTER_BYTES = 32

NOT_PERSONAL = frozenset({"DATE_TIME", "URL"})
"""What is looked for only when asked for by name: by itself it tells nothing about anybody."""

_BLOCK_BYTES = 1 << 16
_SEPARATORS = str.maketrans("", "", " -./:()")
_PART_OF_LONGER_BEFORE = re.compile(rb"[0-9][.:/-]\Z|\b[0-9A-Fa-f]{4}-\Z")
_PART_OF_LONGER_AFTER = re.compile(rb"[.:/-][0-9]|-[0-9A-Fa-f]{4}-|[@]")
_GROUP_BEFORE = re.compile(rb"[0-9][ ]\Z")
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
    """`data[start:end]` may be an entity. `pending`: what follows may still raise its confidence above the threshold."""

    start: int
    end: int
    confidence: float
    rule: Rule
    word: str
    pending: bool


class PatternScanner:
    """Finds what the selected patterns describe. Compiling takes about a second; scanning is thread-safe."""

    def __init__(self, compiled: CompiledPatterns, threshold: float) -> None:
        self._compiled = compiled
        self._threshold = threshold

    @classmethod
    def compile(cls, selection: Selection) -> PatternScanner:
        """Raises ValueError for an entity or region that no pattern has."""
        return cls(CompiledPatterns(selected(selection)), selection.threshold)

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
            before = matches.groups(start - CONTEXT_BEFORE_BYTES, start)
            for rule in rules:
                candidate = self._candidate(data, matches, rule, start, end, before, final)
                if candidate is not None and candidate.start >= floor:
                    result.append(candidate)
        result.sort(key=_START)
        return result

    def _candidate(
        self, data: bytes, matches: Matches, rule: Rule, start: int, end: int, before: int, final: bool
    ) -> Candidate | None:
        pattern = rule.pattern
        after_until = end + CONTEXT_AFTER_BYTES
        confidence, word, pending = pattern.alone, "", False
        if before & rule.group:
            confidence = pattern.backed
        elif confidence < self._threshold:
            backed = matches.groups(end, after_until) & rule.group
            pending = not final and rule.group != 0 and after_until + 2 > len(data)
            confidence = pattern.backed if backed or pending else confidence
        if confidence < self._threshold:
            return None
        extent = _extent(data, rule, start, end)
        if extent is None:
            return None
        if confidence != pattern.alone and not pending:
            lowest = start - CONTEXT_BEFORE_BYTES if before & rule.group else end
            word = matches.word(rule.group, lowest, start if before & rule.group else after_until)
        return Candidate(extent[0], extent[1], confidence, rule, word, pending)


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
    pattern = rule.pattern
    if rule.whole is not None:
        match = rule.whole.match(data, start)
        if match is None:
            return None
        start, end = match.span("value") if "value" in rule.whole.groupindex else match.span()
        end = character_start(data, end)
    if pattern.form is not Form.TEXT and not _stands_alone(data, start, end, pattern.form):
        return None
    while not _holds(pattern, data[start:end]):
        if rule.whole is None or pattern.form is Form.TEXT:
            return None
        shorter = _LAST_GROUP.search(data, start, end)
        if shorter is None:
            return None
        end = shorter.start()
    return start, end


def _stands_alone(data: bytes, start: int, end: int, form: Form) -> bool:
    before = data[max(0, start - 6) : start]
    return not (
        _PART_OF_LONGER_BEFORE.search(before)
        or _PART_OF_LONGER_AFTER.match(data, end)
        or (form is Form.RUN and _GROUP_BEFORE.search(before))
    )


def _holds(pattern: Pattern, found: bytes) -> bool:
    if pattern.check is None:
        return True
    text = found.decode("utf-8", "replace")
    if pattern.form is not Form.TEXT:
        text = text.translate(_SEPARATORS).upper()
    return text != "" and pattern.check.holds(text)
