"""An operator's own words and regular expressions, found in whole texts and in texts that come in pieces.

All are compiled into one matcher without backtracking, so no expression and no text can make it slow; what such a
matcher can't do (look-around, back-references) is refused when it is compiled. Must not know what becomes of a find.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import hyperscan
from msgspec import Struct

from extproc.detection.spans import Evidence, Span
from extproc.detection.stream import Segment

_CONTEXT_CHARS = 64
_FLAGS = hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_UTF8 | hyperscan.HS_FLAG_SOM_LEFTMOST
_NO_SPACES_FROM = 0x2E80
"""Scripts from here on have no spaces between words."""


class UserRule(Struct, frozen=True):
    """One expression of the rule `name`; no match is longer than `longest_chars`, or it is found only in part.

    `whole_words`: a match counts only where no letter or digit stands before or after it (the matcher's own word
    boundary knows ASCII alone).
    """

    name: str
    expression: str
    longest_chars: int
    whole_words: bool = False


class BadExpression(ValueError):
    """An expression that can't be compiled; the message says why, without repeating it."""


def word_rule(name: str, word: str) -> UserRule:
    """A word or phrase: whole words only, in any case, whatever the space between them."""
    words = word.split()
    expression = r"\s{1,3}".join(map(re.escape, words))
    return UserRule(name, expression, len(word) + 2 * len(words) + 1, whole_words=True)


class UserRules:
    """Compiled rules: a `StreamScanner`. Raises BadExpression."""

    def __init__(self, rules: Sequence[UserRule]) -> None:
        self._rules = tuple(rules)
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
        found = sorted((start, -end, number) for (start, number), end in longest.items())
        return self._counted(text, self._in_code_points(data, [(s, -e, n) for s, e, n in found]))

    def _counted(self, text: str, found: Iterable[tuple[int, int, int]]) -> list[Span]:
        spans, reached = [], 0
        for start, end, number in found:
            rule = self._rules[number]
            if start >= reached and not (rule.whole_words and _goes_on(text, start, end)):
                spans.append(Span(start, end, rule.name, 1.0, self._evidence[rule.name]))
                reached = end
        return spans

    def open(self) -> UserStream:
        """A new stream, independent of every other."""
        return UserStream(self)

    def _in_code_points(self, data: bytes, found: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
        byte, point = 0, 0
        for start, end, number in found:
            point += len(data[byte:start].decode("utf-8", "replace"))
            byte = start
            yield point, point + len(data[start:end].decode("utf-8", "replace")), number

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


def _goes_on(text: str, start: int, end: int) -> bool:
    """A match within a longer word."""
    before = start > 0 and _is_letter(text[start - 1]) and _is_letter(text[start])
    return before or (end < len(text) and _is_letter(text[end]) and _is_letter(text[end - 1]))


def _is_letter(char: str) -> bool:
    """Of a script that has spaces between words."""
    return char.isalnum() and ord(char) < _NO_SPACES_FROM


def _reason(error: Exception) -> str:
    """The library's own words, which may repeat nothing of the expression."""
    if isinstance(error, UnicodeEncodeError):
        return "it is not valid text"
    text = str(error)
    known = ("Back-references", "Zero-width assertions", "too large", "Unterminated", "Missing", "Invalid", "empty")
    return text if any(word in text for word in known) else "it can't be compiled: " + text
