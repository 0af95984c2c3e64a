"""An operator's own words and regular expressions, found in whole texts and in texts that come in pieces.

All are compiled into one matcher without backtracking, so no expression and no text can make it slow; what such a
matcher can't do (look-around, back-references) is refused when it is compiled. Must not know what becomes of a find.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any

import hyperscan
from msgspec import Struct

from extproc.detection.spans import Evidence, Span
from extproc.detection.stream import Segment

_CONTEXT_CHARS = 64
_FLAGS = hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_UTF8 | hyperscan.HS_FLAG_UCP | hyperscan.HS_FLAG_SOM_LEFTMOST
_NO_SPACES_FROM = 0x2E80
"""Scripts from here on have no spaces between words."""


class UserRule(Struct, frozen=True):
    """One expression of the rule `name`; no match is longer than `longest_chars`, or it is found only in part."""

    name: str
    expression: str
    longest_chars: int


class BadExpression(ValueError):
    """An expression that can't be compiled; the message says why, without repeating it."""


def word_rule(name: str, word: str) -> UserRule:
    """A word or phrase: whole words only, in any case, whatever the space between them."""
    words = word.split()
    expression = r"\s{1,3}".join(map(re.escape, words))
    before = r"\b" if _stands_apart(word[0]) else ""
    after = r"\b" if _stands_apart(word[-1]) else ""
    return UserRule(name, before + expression + after, len(word) + 2 * len(words) + 1)


def _stands_apart(char: str) -> bool:
    return (char.isalnum() or char == "_") and ord(char) < _NO_SPACES_FROM


class UserRules:
    """Compiled rules: a `StreamScanner`. Raises BadExpression."""

    def __init__(self, rules: Sequence[UserRule]) -> None:
        self._names = [rule.name for rule in rules]
        self._evidence = {rule.name: Evidence("pattern", rule.name) for rule in rules}
        self.longest_chars = max((rule.longest_chars for rule in rules), default=0)
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        expressions = [rule.expression.encode() for rule in rules]
        try:
            self._database.compile(
                expressions=expressions, ids=list(range(len(rules))), elements=len(rules), flags=_FLAGS
            )
        except (hyperscan.error, UnicodeEncodeError) as error:
            raise BadExpression(_reason(error)) from None
        self._of_thread = threading.local()

    def scan(self, text: str) -> list[Span]:
        """In order of their start; of those that overlap, the one that begins first, then the longest."""
        data = text.encode("utf-8", "replace")
        longest: dict[tuple[int, int], int] = {}

        def note(number: int, start: int, end: int, _flags: int, _context: Any) -> None:
            if end > longest.get((start, number), start):
                longest[start, number] = end

        self._database.scan(data, match_event_handler=note, scratch=self._scratch())
        spans, reached = [], 0
        for (start, number), end in sorted(longest.items(), key=lambda found: (found[0][0], -found[1], found[0][1])):
            if start >= reached:
                spans.append((start, end, self._names[number]))
                reached = end
        return self._in_code_points(data, spans)

    def open(self) -> UserStream:
        """A new stream, independent of every other."""
        return UserStream(self)

    def _in_code_points(self, data: bytes, found: Sequence[tuple[int, int, str]]) -> list[Span]:
        spans, byte, point = [], 0, 0
        for start, end, name in found:
            first = point + len(data[byte:start].decode("utf-8", "replace"))
            last = first + len(data[start:end].decode("utf-8", "replace"))
            spans.append(Span(first, last, name, 1.0, self._evidence[name]))
            byte, point = end, last
        return spans

    def _scratch(self) -> Any:
        scratch = getattr(self._of_thread, "scratch", None)
        if scratch is None:
            scratch = self._of_thread.scratch = hyperscan.Scratch(self._database)
        return scratch


class UserStream:
    """One text in pieces (a `TextStream`). Held back is as much as the longest match has room in."""

    def __init__(self, rules: UserRules) -> None:
        self._rules = rules
        self._text = ""
        self._released = 0

    def feed(self, piece: str) -> list[Segment]:
        self._text += piece
        return self._release(len(self._text) - self._rules.longest_chars)

    def close(self) -> list[Segment]:
        return self._release(len(self._text))

    def _release(self, cut: int) -> list[Segment]:
        """Everything that begins before `cut`; a match that does is complete by now."""
        if cut <= self._released:
            return []
        spans = [span for span in self._rules.scan(self._text) if self._released <= span.start < cut]
        start, end = self._released, max([cut, *(span.end for span in spans)])
        moved = [Span(s.start - start, s.end - start, s.entity, s.confidence, s.evidence) for s in spans]
        segment = Segment(self._text[start:end], tuple(moved))
        dropped = max(0, end - _CONTEXT_CHARS)
        self._text, self._released = self._text[dropped:], end - dropped
        return [segment]


def _reason(error: Exception) -> str:
    """The library's own words, which may repeat nothing of the expression."""
    if isinstance(error, UnicodeEncodeError):
        return "it is not valid text"
    text = str(error)
    known = ("Back-references", "Zero-width assertions", "too large", "Unterminated", "Missing", "Invalid", "empty")
    return text if any(word in text for word in known) else "it can't be compiled: " + text
