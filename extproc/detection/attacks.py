"""How much a text looks like an attack on the model that will read it: known phrases, also where they are disguised.

One compiled pattern set for all rules of all languages. Text is looked at in overlapping chunks: evidence adds up where
it stands together and not over a whole book, and no length of padding dilutes it. Time grows with the text alone, never
with what is in it. Must not know what becomes of the result.
"""

from __future__ import annotations

import enum
import functools
import math
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import hyperscan
from msgspec import Struct

from extproc.detection import attack_phrases, attack_phrases_languages
from extproc.detection.database import Keep, database
from extproc.detection.normalise import (
    BASE64_PROBE,
    IN_PLACE,
    Disguise,
    View,
    decode_base64,
    fold,
    invisible_message,
    undo,
)

CHUNK_CHARS = 4096
_OVERLAP_CHARS = 512
_UNDONE_CHUNKS = 256
"""So many chunks (1 MB) of a text are searched for disguises; each may cost as much as a hundred plain ones."""

_BEFORE_CHARS, _AFTER_CHARS = 300, 100


class Family(enum.StrEnum):
    """What an attack tries, or how. MENTION is the opposite: talk about attacks."""

    OVERRIDE = "override"
    REVEAL = "reveal"
    PERSONA = "persona"
    REFUSAL = "refusal"
    DELIMITER = "delimiter"
    ENCODED = "encoded"
    EXFILTRATE = "exfiltrate"
    INDIRECT = "indirect"
    MENTION = "mention"


class Finding(Struct, frozen=True):
    """The most suspicious place of a text, or one of them.

    `weight`: the sum of its families' weights, in log-odds as the phrases give them; `excerpt` is what is to be read
    there, folded and undisguised; `start`, `end` where in the original (code points), None if it does not stand there
    as it is.
    """

    weight: float
    families: tuple[Family, ...]
    disguises: tuple[Disguise, ...]
    excerpt: str
    start: int | None = None
    end: int | None = None


class Findings(Struct, frozen=True):
    """The heaviest first, at most as many as were asked for. `complete`: all of the text was searched for disguises."""

    places: tuple[Finding, ...]
    complete: bool = True

    @property
    def weight(self) -> float:
        return self.places[0].weight if self.places else 0.0


class _Hit(Struct, frozen=True):
    family: Family
    weight: float
    end: int


_Meaning = tuple[Family, float] | Disguise
"""Of an expression: a rule of a family, with its weight, or where to look for a disguise."""


class _Found(Struct):
    """What one scan of one chunk gave."""

    hits: list[_Hit] = []
    probes: set[Disguise] = set()


DISGUISED_WEIGHT = 1.5
"""A phrase that somebody took the trouble to hide."""

_MANY_WEIGHT = 0.5
"""Each further rule of a family that has been counted already, twice at most."""


class _Set:
    """Some expressions over one kind of text, and what each of them means."""

    def __init__(self, expressions: Iterable[tuple[_Meaning, bytes]], keep: Keep | None) -> None:
        expressions = list(expressions)
        self._meaning = [meaning for meaning, _ in expressions]
        flags = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_DOTALL
        self._database = database([pattern for _, pattern in expressions], [flags] * len(expressions), keep)
        self._of_thread = threading.local()

    def scan(self, data: bytes) -> list[tuple[_Meaning, int]]:
        """What was found, and where the first match of each expression ends."""
        found: list[tuple[_Meaning, int]] = []

        def note(number: int, _start: int, end: int, _flags: int, _context: Any) -> None:
            found.append((self._meaning[number], end))

        self._database.scan(data, match_event_handler=note, scratch=self._scratch())
        return found

    def _scratch(self) -> Any:
        scratch = getattr(self._of_thread, "scratch", None)
        if scratch is None:
            scratch = self._of_thread.scratch = hyperscan.Scratch(self._database)
        return scratch


class AttackRules:
    """Every rule, compiled. Safe to use from several threads at once."""

    def __init__(self, keep: Keep | None = None) -> None:
        phrases = (*attack_phrases.PHRASES, *attack_phrases_languages.PHRASES)
        probes = [(disguise, pattern.encode()) for disguise, pattern in IN_PLACE.items()]
        self._words = _Set(_rules(phrases, _BETWEEN_WORDS), keep)
        self._signs = _Set(
            [*_rules(attack_phrases.LITERAL, _BETWEEN_SIGNS), *probes, (Disguise.BASE64, BASE64_PROBE.encode())],
            keep,
        )

    def search(self, text: str, most: int = 4) -> Findings:
        """The places that look most like an attack; none where no rule speaks."""
        folded = fold(text)
        same_places = len(folded) == len(text)
        places: list[Finding] = []
        probes: set[Disguise] = set()
        undone, encoded = 0, _Found()
        for start in chunk_starts(len(folded)):
            chunk = folded[start : start + CHUNK_CHARS]
            found = self._scan(chunk)
            probes |= found.probes
            encoded.hits += [hit for hit in found.hits if hit.family is Family.ENCODED]
            places += _weighed(chunk, found.hits, (), start if same_places else None)
            if found.probes - {Disguise.BASE64}:
                undone += 1
                if undone <= _UNDONE_CHUNKS:
                    places += self._undisguised(chunk, found)
        for view in _hidden(text, probes):
            places += self._in_view(view, encoded.hits[:1])
        places.sort(key=lambda place: -place.weight)
        return Findings(tuple(places[:most]), undone <= _UNDONE_CHUNKS)

    def _undisguised(self, chunk: str, plain: _Found) -> Iterator[Finding]:
        for disguise in sorted(plain.probes - {Disguise.BASE64}):
            for view in undo(disguise, chunk):
                yield from self._in_view(view, plain.hits)

    def _in_view(self, view: View, beside: Sequence[_Hit]) -> Iterator[Finding]:
        """What is in a view counts as disguised only if the plain text did not say it as well."""
        known = {(hit.family, hit.weight) for hit in beside}
        for start in chunk_starts(len(view.text)):
            chunk = view.text[start : start + CHUNK_CHARS]
            hits = self._scan(chunk).hits
            if any((hit.family, hit.weight) not in known and hit.weight > 1 for hit in hits):
                kept = [hit for hit in beside if hit.family is Family.ENCODED]
                yield from _weighed(chunk, [*hits, *kept], (view.disguise,), None)

    def _scan(self, folded: str) -> _Found:
        found = _Found([], set())
        data = folded.encode("utf-8", "surrogatepass")
        words = _words_only(data)
        for scanned, results in ((words, self._words.scan(words)), (data, self._signs.scan(b"\n" + data))):
            for meaning, end in results:
                if isinstance(meaning, Disguise):
                    found.probes.add(meaning)
                else:
                    found.hits.append(_Hit(*meaning, end * len(folded) // len(scanned)))
        return found


@functools.cache
def rules(keep: Keep | None = None) -> AttackRules:
    """The one set of a process; compiling it takes seconds."""
    return AttackRules(keep)


def chunk_starts(length: int) -> Iterable[int]:
    """Where the overlapping chunks of a text begin."""
    return range(0, max(1, length - _OVERLAP_CHARS), CHUNK_CHARS - _OVERLAP_CHARS)


def _hidden(text: str, probes: set[Disguise]) -> Iterator[View]:
    """What has to be read off the original; base64 within base64 too."""
    message = invisible_message(text)
    if message is not None:
        yield message
    if Disguise.BASE64 in probes:
        view = decode_base64(text)
        if view is not None:
            yield view


def _weighed(
    chunk: str, hits: Sequence[_Hit], disguises: tuple[Disguise, ...], origin: int | None
) -> Iterator[Finding]:
    """One finding for one chunk, if there is evidence in it."""
    best: dict[Family, float] = {}
    further: dict[Family, int] = {}
    for hit in hits:
        if hit.family in best:
            further[hit.family] = min(2, further.get(hit.family, 0) + 1)
        if abs(hit.weight) > abs(best.get(hit.family, 0.0)):
            best[hit.family] = hit.weight
    excuse = best.pop(Family.MENTION, 0.0)
    if not best:
        return
    weight = sum(best.values()) + _MANY_WEIGHT * sum(further.get(family, 0) for family in best)
    weight += DISGUISED_WEIGHT if disguises else excuse
    if weight <= 0:
        return
    heaviest = max((hit for hit in hits if hit.family is not Family.MENTION), key=lambda hit: hit.weight)
    start, end = max(0, heaviest.end - _BEFORE_CHARS), min(len(chunk), heaviest.end + _AFTER_CHARS)
    where = (None, None) if origin is None else (origin + start, origin + end)
    yield Finding(weight, tuple(sorted(best)), disguises, chunk[start:end], *where)


# The phrases as regular expressions over UTF-8.


class _Between(Struct, frozen=True):
    """What stands between the words of a phrase."""

    gap: str
    words: str
    sentence: str


_BETWEEN_WORDS = _Between(r"[ .]", r"[ .](?:[^ .]+[ .]){0,4}", r"[^.]{0,60}")
_BETWEEN_SIGNS = _Between(r"(?:[^a-z0-9]{1,3})", r"(?:[^a-z0-9]+(?:[^ .]+[ .]+){0,4})", r"[^\n]{0,60}")
_ANY_LETTERS = r"[^.]*"
_WORDS_ONLY = bytes(
    code if code >= 0x80 or chr(code).isalnum() else ord(".") if chr(code) in ".!?\n" else ord(" ")
    for code in range(256)
)
_SENTENCE_END = re.compile(rb" ?\.[ .]*")
_TOKEN = re.compile(r" ?(_) ?| ?(~) ?|(@)|\\.|\[(?:\\.|[^\]\\])+\]|\{([a-z]+)\}|.", re.DOTALL)


def _words_only(data: bytes) -> bytes:
    """Words with one space between them, or one full stop where a sentence ends."""
    return _SENTENCE_END.sub(b".", b" ".join(data.translate(_WORDS_ONLY).split()))


def _rules(blocks: Iterable[tuple[str, float, str]], between: _Between) -> Iterator[tuple[_Meaning, bytes]]:
    for family, weight, lines in blocks:
        for line in filter(None, map(str.strip, lines.split("\n"))):
            yield (Family(family), weight), pattern_of(line if line.isascii() else fold(line), between)


def pattern_of(line: str, between: _Between) -> bytes:
    """One line of a phrase table. Raises KeyError for a name that has no words."""
    before = r"\b" if line[0].isalnum() or (line[0] in "({" and between is _BETWEEN_WORDS) else ""
    after = r"\b" if line[-1].isalnum() or line[-1] == "}" else ""
    expression = _expression(line, between)
    return (f"{before}(?:{expression}){after}" if line.isascii() else expression).encode()  # \b knows ASCII only


def _expression(line: str, between: _Between) -> str:
    parts = []
    for token in _TOKEN.finditer(line):
        text = token[0]
        if token[1]:
            parts.append(between.words)
        elif token[2]:
            parts.append(between.sentence)
        elif token[3]:
            parts.append(_ANY_LETTERS)
        elif token[4]:
            parts.append(f"(?:{_expression(attack_phrases.WORDS[token[4]], between)})")
        elif text == " ":
            parts.append(between.gap)
        else:
            parts.append(text if text.isascii() or len(text) > 1 else f"(?:{text})")
    return "".join(parts)


def odds(weight: float, bias: float) -> float:
    """A probability from log-odds."""
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, weight + bias))))
