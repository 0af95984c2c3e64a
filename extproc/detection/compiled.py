"""Patterns made ready to search with: one hyperscan database of their expressions and of all their words of context."""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import hyperscan

from extproc.detection.database import Keep, database
from extproc.detection.patterns.pattern import Check, Form, Pattern
from extproc.detection.spans import Evidence

_SHORT_WORD = 4


class Rule(NamedTuple):
    """A pattern with what is worked out once: `group` is the bit of its words of context, `value` the group of `whole`
    that is the find. The rest is repeated from the pattern because it is read for every match.
    """

    pattern: Pattern
    name: str
    whole: re.Pattern[bytes] | None
    group: int
    alone: float
    backed: float
    check: Check | None
    form: Form
    value: str | int

    def evidence(self, word: str) -> Evidence:
        check = self.pattern.check
        return Evidence("pattern", self.name, check.name if check else "", word)


class Matches:
    """What one search found: where expressions match, and words of context by where they end. Positions in bytes."""

    def __init__(self, compiled: CompiledPatterns) -> None:
        self._compiled = compiled
        self._first_word = len(compiled.rules)
        self.found: list[tuple[int, int, int]] = []
        self._words: list[tuple[int, int]] = []
        self._ends: list[int] = []

    def report(self, identity: int, start: int, end: int, flags: int, context: object) -> None:
        """hyperscan's callback."""
        if identity < self._first_word:
            self.found.append((identity, start, end))
        else:
            self._words.append((end, identity - self._first_word))

    def sort_words(self) -> None:
        self._words.sort()
        self._ends = [end for end, _ in self._words]

    def around(self, start: int, end: int, before_bytes: int, after_bytes: int) -> tuple[int, int]:
        """The groups, as bits, of which a word ends within so many bytes before `start`, and after `end`."""
        before = after = 0
        first = bisect_right(self._ends, start - before_bytes)
        for position, word in islice(self._words, first, None):
            if position > end + after_bytes:
                break
            if position <= start:
                before |= self._compiled.words[word][1]
            elif position > end:
                after |= self._compiled.words[word][1]
        return before, after

    def word(self, group: int, after: int, until: int) -> str:
        """The last such word of a group."""
        for _, word in reversed(self._words[bisect_right(self._ends, after) : bisect_right(self._ends, until)]):
            if self._compiled.words[word][1] & group:
                return self._compiled.words[word][0]
        return ""


class CompiledPatterns:
    """Immutable once made; every thread searches with a scratch space of its own."""

    def __init__(self, patterns: Iterable[tuple[str, Pattern]], keep: Keep | None = None) -> None:
        groups: dict[tuple[str, ...], int] = {}
        by_expression: dict[str, list[Rule]] = {}
        for region, pattern in patterns:
            group = groups.setdefault(pattern.context, 1 << len(groups)) if pattern.context else 0
            whole = re.compile(pattern.whole.encode()) if pattern.whole else None
            by_expression.setdefault(pattern.expression, []).append(_rule(region, pattern, whole, group))
        self.rules = tuple(tuple(rules) for rules in by_expression.values())
        bits: dict[str, int] = {}
        for words, group in groups.items():
            for word in words:
                bits[word] = bits.get(word, 0) | group
        self.words = tuple(bits.items())
        self._database = _database(list(by_expression), list(bits), keep)
        self._scratch = hyperscan.Scratch(self._database)
        self._local = threading.local()

    def search(self, data: bytes) -> Matches:
        matches = Matches(self)
        scratch = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = self._scratch.clone()
        self._database.scan(data, match_event_handler=matches.report, scratch=scratch)
        matches.sort_words()
        return matches


def _rule(region: str, pattern: Pattern, whole: re.Pattern[bytes] | None, group: int) -> Rule:
    value = "value" if whole and "value" in whole.groupindex else 0
    name = f"{region}/{pattern.name}"
    return Rule(pattern, name, whole, group, pattern.alone, pattern.backed, pattern.check, pattern.form, value)


def _database(expressions: list[str], words: list[str], keep: Keep | None) -> hyperscan.Database:
    everything = expressions + [_word_expression(word) for word in words]
    flags = [hyperscan.HS_FLAG_SOM_LEFTMOST] * len(expressions) + [hyperscan.HS_FLAG_CASELESS] * len(words)
    return database([expression.encode() for expression in everything], flags, keep)


def _word_expression(word: str) -> str:
    """Short ASCII words stand alone, longer ones begin a word (`passports`); other scripts may stand anywhere.

    Between the words of a phrase there may be a sign or nothing: `api key`, `api_key`, `apiKey`.
    """
    expression = re.escape(word).replace(r"\ ", "[ _-]?").replace("'", "(?:'|\u2019)?")
    if not word.isascii():
        return expression
    ends = r"(?:\b|_)" if len(word) <= _SHORT_WORD else ""
    return rf"(?:\b|_){expression}{ends}"
