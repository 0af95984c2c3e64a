"""Placeholders that stand for a text on its way to a model, and are turned back in the answer.

A placeholder is `<PERSON_1_kdwzpr>`: what it stands for, a number, and six letters drawn for this exchange alone and
found nowhere in its request. So nobody who wrote the request, or a document in it, can have written one; and one
exchange's placeholders mean nothing in another. Must not know: what is replaced by them, and how answers come.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence

from extproc.detection.runs import RESTORED, Run, RunQueue, escaped

NONCE_LETTERS = "bcdfghjklmnpqrstvwxz"
"""No vowels, so that no word comes of it; no digits, so that it can't be taken for the number before it."""

NONCE_LENGTH = 6
_DIGITS = 5
_SEPARATOR = r"\\?[_ -]"  # models escape underscores in Markdown, or write them as spaces or hyphens
_FLAGS = re.IGNORECASE | re.ASCII


def draw_nonce(texts: Sequence[str], choose: Callable[[str], str]) -> str:
    """Letters that are in none of the texts, in any case; `choose` picks one letter."""
    while True:
        nonce = "".join(choose(NONCE_LETTERS) for _ in range(NONCE_LENGTH))
        pattern = re.compile(nonce, _FLAGS)
        if not any(pattern.search(text) for text in texts):
            return nonce


class Pseudonyms:
    """The placeholders of one exchange. The same text of the same entity has the same placeholder."""

    __slots__ = ("_issued", "_nonce", "_originals")

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce
        self._issued: dict[tuple[str, str], str] = {}
        self._originals: dict[tuple[str, int], str] = {}

    def __bool__(self) -> bool:
        return bool(self._issued)

    def placeholder(self, entity: str, text: str) -> str:
        """The one that stands for this text."""
        issued = self._issued.get((entity, text))
        if issued is None:
            number = len(self._issued) + 1
            issued = self._issued[entity, text] = f"<{entity}_{number}_{self._nonce}>"
            self._originals[entity, number] = text
        return issued

    def original(self, entity: str, number: str, nonce: str) -> str | None:
        """What these parts of a placeholder stand for; None unless this exchange issued it."""
        if nonce.lower() != self._nonce:
            return None
        name = re.sub(_SEPARATOR, "_", entity).upper()
        return self._originals.get((name, int(number)))

    @property
    def entities(self) -> frozenset[str]:
        """The kinds of text that have placeholders."""
        return frozenset(entity for entity, _ in self._issued)


class Restorer:
    """Puts originals back, in runs that come in any pieces.

    Holds back what may be the beginning of a placeholder, which is never more than a placeholder's length. One that
    this exchange didn't issue is text like any other.
    """

    __slots__ = ("_held", "_pseudonyms", "_syntax", "restored")

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms
        self._syntax = _syntax(pseudonyms.entities)
        self._held: list[Run] = []
        self.restored = 0

    def feed(self, runs: Iterable[Run]) -> list[Run]:
        return self._read([*self._held, *runs], last=False)

    def finish(self) -> list[Run]:
        return self._read(self._held, last=True)

    def _read(self, runs: list[Run], *, last: bool) -> list[Run]:
        text = "".join([run.text for run in runs])
        queue = RunQueue(runs)
        passed: list[Run] = []
        at = 0
        for start, end, original in self._finds(text, last=last):
            passed += queue.take(start - at)
            zone = queue.take(end - start)[0].zone
            passed.append(Run(RESTORED, escaped(original, zone), zone))
            self.restored += 1
            at = end
        ready = len(text) if last else self._syntax.unfinished(text, at)
        passed += queue.take(ready - at)
        self._held = queue.take(len(text) - ready)
        return passed

    def _finds(self, text: str, *, last: bool) -> Iterable[tuple[int, int, str]]:
        """Where placeholders of ours stand, and their originals; brackets go only if both are there."""
        for match in self._syntax.whole.finditer(text):
            original = self._pseudonyms.original(match["entity"], match["number"], match["nonce"])
            if original is None:
                continue
            start, end = match.span("name")
            if match["open"]:
                if end == len(text) and not last:
                    return  # its closing bracket may come yet
                if match["close"]:
                    start, end = match.span()
            yield start, end, original


class _Syntax:
    """How placeholders of some entities may be written, whole and cut short."""

    def __init__(self, entities: frozenset[str]) -> None:
        names = [entity.replace("_", _SEPARATOR) for entity in sorted(entities, key=len, reverse=True)]
        nonce = f"[{NONCE_LETTERS}]{{{NONCE_LENGTH}}}"
        tail = rf"{_SEPARATOR}(?P<number>[0-9]{{1,{_DIGITS}}}){_SEPARATOR}(?P<nonce>{nonce})"
        self.whole = re.compile(rf"(?P<open><)?(?P<name>(?P<entity>{'|'.join(names)}){tail})(?P<close>>)?", _FLAGS)
        self._beginnings = [_beginning(entity) for entity in entities]
        self._longest = 2 * max(map(len, entities), default=0) + _DIGITS + NONCE_LENGTH + 8

    def unfinished(self, text: str, at: int) -> int:
        """Where, from `at` on, a placeholder may have begun; the text's length if there is none."""
        earliest, start = len(text), max(at, len(text) - self._longest)
        for beginning in self._beginnings:
            match = beginning.search(text, start)
            if match is not None:
                earliest = min(earliest, match.start())
        return earliest


_syntax = functools.lru_cache(maxsize=256)(_Syntax)


@functools.lru_cache(maxsize=256)
def _beginning(entity: str) -> re.Pattern[str]:
    """Everything that a placeholder of this entity can begin with, at a text's end."""
    separator = [r"\\?", "[_ -]"]
    atoms: list[str] = []
    for letter in entity:
        atoms += separator if letter == "_" else [re.escape(letter)]
    atoms += [*separator, f"[0-9]{{1,{_DIGITS}}}", *separator, *[f"[{NONCE_LETTERS}]"] * NONCE_LENGTH]
    pattern = ""
    for atom in reversed(atoms):
        pattern = f"{atom}(?:{pattern})?" if pattern else atom
    return re.compile(rf"(?:<|<?{pattern})\Z", _FLAGS)
