"""A request's texts as `redact` reads them: what was found where, and the same texts with the finds replaced.

Must not know: which actions are chosen, and how finds are made.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace as changed

from extproc.detection.replacement import replaced
from extproc.detection.runs import JsonReader, Replace, Run, RunQueue, write
from extproc.detection.spans import Span, merged
from extproc.dialects.interface import Notation, TextSegment


class Reading:
    """One segment. `text` is what there is to look at: of JSON, with its escapes read. `spans` are of that text."""

    __slots__ = ("_runs", "segment", "spans", "text")

    def __init__(self, segment: TextSegment) -> None:
        self.segment = segment
        self._runs: list[Run] | None = None
        self.text = segment.text
        self.spans: Sequence[Span] = ()
        if segment.notation is Notation.JSON:
            reader = JsonReader()
            self._runs = [*reader.feed(segment.text), *reader.finish()]
            self.text = "".join([run.text for run in self._runs])

    def add(self, spans: Sequence[Span]) -> None:
        """More finds; where they overlap what is found already, they are dropped."""
        if not self.spans:
            self.spans = spans
        elif spans:
            self.spans = merged(self.spans, spans)

    def replaced(self, replace: Replace) -> TextSegment:
        """The segment without what was found."""
        if self._runs is not None:
            return changed(self.segment, text=write(RunQueue(self._runs), self.text, self.spans, replace))
        if self.segment.notation is Notation.NAME:
            return changed(self.segment, text=replaced(self.text, self.spans, _as_name(replace)))
        return changed(self.segment, text=replaced(self.text, self.spans, replace))


def _as_name(replace: Replace) -> Replace:
    """APIs refuse angle brackets in names."""
    return lambda entity, text: replace(entity, text).strip("<>")
