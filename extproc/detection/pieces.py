"""A text cut into pieces that are each judged by themselves, so that a stream and a whole text are judged alike.

A piece is a sentence, or some short ones together, or as much of a long one as may be held back. Where it ends depends
on the text alone, never on how the text came. Pure; must not know who judges.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec.structs import replace

from extproc.detection.spans import Span
from extproc.detection.stream import Segment

_SHORTEST_CHARS = 32
"""A judge sees more in two short sentences than in each."""

# The character after an end has to be known, for it decides: `3.5` is no end, nor is `end.)` before its bracket.
_CLOSING = r"\"'\u2019\u201d"
_WIDE_ENDS = r"\u3002\uff01\uff1f"  # of Chinese and Japanese, after which no space comes
_END = re.compile(
    rf"[.!?\u2026]+[{_CLOSING})\]\u00bb]*(?=\s)"
    rf"|[{_WIDE_ENDS}]+[{_CLOSING}\u300d\u300f]*(?=[^{_CLOSING}\u300d\u300f{_WIDE_ENDS}])"
    r"|\n"
)
_ABBREVIATED = re.compile(r"\b(?:[A-Za-z]|[A-Z][a-z]{1,2}|[Pp]rof)\.\Z")  # `J.`, `Dr.`, `Ave.`; some short words, too


class Pieces:
    """One text's. Holds back what is no whole piece yet: at most `longest_chars`, or a find that goes on beyond."""

    __slots__ = ("_longest_chars", "_spans", "_text")

    def __init__(self, longest_chars: int) -> None:
        self._longest_chars = longest_chars
        self._text = ""
        self._spans: list[Span] = []

    def add(self, segments: Sequence[Segment]) -> list[Segment]:
        """The pieces that are whole now; no find of the segments crosses one's end."""
        at = len(self._text)
        for segment in segments:
            self._spans += (_moved(span, at) for span in segment.spans)
            at += len(segment.text)
        self._text += "".join([segment.text for segment in segments])
        return self._cut(last=False)

    def finish(self) -> list[Segment]:
        """What is left."""
        return self._cut(last=True)

    def _cut(self, *, last: bool) -> list[Segment]:
        pieces: list[Segment] = []
        start = taken = 0
        while (end := self._end(start, last=last)) is not None:
            first = taken
            while taken < len(self._spans) and self._spans[taken].start < end:
                end = max(end, self._spans[taken].end)
                taken += 1
            inner = tuple(_moved(span, -start) for span in self._spans[first:taken])
            pieces.append(Segment(self._text[start:end], inner))
            start = end
        self._text = self._text[start:]
        self._spans = [_moved(span, -start) for span in self._spans[taken:]]
        return pieces

    def _end(self, start: int, *, last: bool) -> int | None:
        """Where the piece that begins at `start` ends; None while that is not known."""
        text, longest = self._text, start + self._longest_chars
        for match in _END.finditer(text, start + min(_SHORTEST_CHARS, self._longest_chars) - 1, longest + 1):
            end = match.end()
            if end <= longest and not _ABBREVIATED.search(text, max(start, end - 6), end):
                return end
        if len(text) > longest:
            return (text.rfind(" ", start + self._longest_chars // 2, longest) + 1) or longest
        return len(text) if last and start < len(text) else None


def _moved(span: Span, by: int) -> Span:
    return replace(span, start=span.start + by, end=span.end + by)
