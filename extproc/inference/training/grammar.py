"""Sentences from a small grammar. Owns: the notation of the files in `phrases/` and how a sentence is drawn from one.

A file is a list of rules. `= name` starts one; every line after it is a way to say it. In a line `{other}` stands for
another rule, `<a|b>` for one of its alternatives and `\\n` for a line break. Names the grammar does not define are
asked of a provider; one in capitals (`{PERSON}`) is an entity and its place in the text is kept.

Every rule with enough lines is split in two by a hash of each line: one part makes the training data, the other is
kept for evaluation, so that no template and no phrase of a long list is seen in both. A rule marked `= name *` is
shared: it only says what is composed of what.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import resources

_SPLIT_FROM = 10
"""A rule with fewer lines is shared: it is glue, and a part of it would be empty."""
_HELD_OUT_OF = 6
_SHARED = " *"
_TOKEN = re.compile(r"\{(\w+)\}|<(?!\|\w+\|>)([^<>]*\|[^<>]*)>")
"""A name or alternatives; `<|im_start|>` is neither."""


class Part(Enum):
    TRAINING = "training"
    HELD_OUT = "held out"


def part_of(text: str) -> Part:
    """Which part a phrase belongs to: one in six is held out. Depends on nothing but the phrase."""
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    return Part.HELD_OUT if int.from_bytes(digest, "big") % _HELD_OUT_OF == 0 else Part.TRAINING


@dataclass(frozen=True)
class Entity:
    """`text[start:end]` (code points) of the text it came with."""

    start: int
    end: int
    label: str


@dataclass
class Draft:
    """A text being written, with the entities in it so far."""

    text: str = ""
    entities: list[Entity] = field(default_factory=list)

    def write(self, text: str, label: str | None = None) -> None:
        if label is not None:
            self.entities.append(Entity(len(self.text), len(self.text) + len(text), label))
        self.text += text


Provider = Callable[[str, random.Random], str]
"""A name the grammar does not define, and chance: what to write. Raises KeyError for a name it does not know."""


def no_provider(name: str, _: random.Random) -> str:
    raise KeyError(name)


class Grammar:
    def __init__(self, rules: Mapping[str, list[str]], part: Part, provider: Provider = no_provider) -> None:
        self._rules = {
            name.removesuffix(_SHARED): lines if name.endswith(_SHARED) else _of_part(lines, part)
            for name, lines in rules.items()
        }
        self._provider = provider

    def names(self) -> list[str]:
        return list(self._rules)

    def size(self, name: str) -> int:
        """How many lines the rule has in this part."""
        return len(self._rules[name])

    def draw(self, name: str, chance: random.Random) -> Draft:
        draft = Draft()
        self._expand(chance.choice(self._rules[name]), chance, draft)
        return draft

    def say(self, name: str, chance: random.Random) -> str:
        return self.draw(name, chance).text

    def _expand(self, line: str, chance: random.Random, draft: Draft) -> None:
        done = 0
        for found in _TOKEN.finditer(line):
            draft.write(line[done : found.start()])
            done = found.end()
            if found[1] is None:
                self._expand(chance.choice(found[2].split("|")), chance, draft)
            elif found[1] in self._rules:
                self._expand(chance.choice(self._rules[found[1]]), chance, draft)
            else:
                draft.write(self._provider(found[1], chance), found[1] if found[1].isupper() else None)
        draft.write(line[done:])


def load(*files: str) -> dict[str, list[str]]:
    """The rules of these files of `phrases/` together. Raises ValueError where a name is defined twice."""
    rules: dict[str, list[str]] = {}
    for file in files:
        lines: list[str] = []
        text = resources.files(f"{__package__}.phrases").joinpath(f"{file}.txt").read_text(encoding="utf-8")
        for line in text.splitlines():
            if line.startswith("= "):
                if line[2:].rstrip(" *") in {name.rstrip(" *") for name in rules}:
                    raise ValueError(f"{file}: rule {line[2:]} is defined twice")
                lines = rules[line[2:]] = []
            elif line.strip():
                lines.append(line.replace("\\n", "\n"))
    return rules


def _of_part(lines: list[str], part: Part) -> list[str]:
    if len(lines) < _SPLIT_FROM:
        return lines
    return [line for line in lines if part_of(line) is part] or lines
