"""Pairs of texts for the verifier, each with whether one's answer also answers the other.

Owns: how the phrases beside this file become pairs. A family of intents shares its slots, so that its intents, filled
with the same words, are each other's hard negatives; phrasings of one intent are paraphrases. Everything follows from
a part (training or held out), a size and a seed. Whole families are held out, and one word of six of every slot.
Knows nothing of tokens or of the model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from extproc.inference.training.grammar import Part, part_of
from extproc.inference.training.pairs.edits import Edits
from extproc.inference.training.pairs.statements import Statements

_SLOT = re.compile(r"\{(\w+?)(2?)\}")
_CHOICE = re.compile(r"\[([^\[\]]+)\]")

Intent = tuple[str, ...]
Fills = dict[str, str]


@dataclass(frozen=True)
class Pair:
    """`same`: the answer to one is an answer to the other. `kind` is for the report."""

    one: str
    other: str
    same: bool
    kind: str


def lines_of(file: str) -> list[str]:
    text = resources.files(__package__).joinpath(f"{file}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


def slots_of(file: str, separator: str = ", ") -> dict[str, list[str]]:
    """`name: value, value` a line."""
    pairs = (line.split(": ", 1) for line in lines_of(file))
    return {name: values.split(separator) for name, values in pairs}


def families() -> dict[str, list[Intent]]:
    """`= family` opens one; each line below is an intent, its phrasings separated by ` | `."""
    found: dict[str, list[Intent]] = {}
    for line in lines_of("intents"):
        if line.startswith("= "):
            intents = found.setdefault(line[2:], [])
        else:
            intents.append(tuple(line.removeprefix("- ").split(" | ")))
    return found


@dataclass(frozen=True)
class Group:
    """Phrasings of one question, and questions near it that are other ones, each in one phrasing."""

    same: Intent
    near: Intent


def groups() -> list[Group]:
    """`= phrasing | phrasing` opens one; `! near miss` is another question, whichever phrasing it stands beside."""
    found: list[Group] = []
    for line in lines_of("groups"):
        mark, text = line.split(" ", 1)
        if mark == "=":
            found.append(Group(tuple(text.split(" | ")), ()))
        else:
            found[-1] = Group(found[-1].same, (*found[-1].near, text))
    return found


class Composer:
    """Draws pairs of one part. `words` are any words at all: some slots are filled with them, so that what is learned
    is about texts and not about these slots."""

    def __init__(self, part: Part, seed: int, words: Sequence[str]) -> None:
        self._chance = random.Random(f"pairs {part.value} {seed}")  # noqa: S311 (no secret)
        self._families = [intents for name, intents in families().items() if part_of(name) is part]
        self._groups = [group for group in groups() if part_of(group.same[0]) is part]
        self._slots = {name: _of_part(values, part) for name, values in slots_of("slots").items()}
        self._words = words
        self._edits = Edits(
            self._chance,
            [line.split(" | ") for line in lines_of("conditions")],
            [line.split(", ") for line in lines_of("synonyms")],
        )
        self._statements = Statements(
            self._chance, slots_of("vocabulary"), lambda name: self._value(name, self._chance.random() < 0.2)
        )
        self._kinds = {
            self._paraphrase: 0.16, self._sibling: 0.12, self._slot: 0.08, self._swapped: 0.04, self._condition: 0.06,
            self._statement: 0.18, self._edited: 0.10, self._unrelated: 0.02, self._phrased: 0.14, self._near: 0.10,
        }  # fmt: skip

    def pairs(self, count: int) -> list[Pair]:
        return [self._dressed(self._one()) for _ in range(count)]

    def _one(self) -> Pair:
        while True:
            pair = self._chance.choices(list(self._kinds), list(self._kinds.values()))[0]()
            if pair is not None and (pair.same or pair.one != pair.other):
                return pair

    def _dressed(self, pair: Pair) -> Pair:
        """As people type; what is said to be the same must stay so, what is not must stay different."""
        one, other = (self._edits.typed(text) for text in (pair.one, pair.other))
        if self._chance.random() < 0.5:
            one, other = other, one
        return Pair(one, other, pair.same, pair.kind)

    def _value(self, slot: str, any_word: bool) -> str:
        if any_word and slot not in ("n", "year", "hour", "weekday", "month"):
            return " ".join(self._chance.sample(self._words, self._chance.choice([1, 1, 2])))
        if slot == "n" and any_word:
            return str(self._chance.randint(2, 5000))
        return self._chance.choice(self._slots[slot])

    def _fills(self, intents: Sequence[Intent]) -> Fills:
        fills: Fills = {}
        any_word = self._chance.random() < 0.3
        for name, second in _SLOT.findall(" ".join(text for intent in intents for text in intent)):
            while (value := self._value(name, any_word)) in fills.values():
                pass
            fills.setdefault(name + second, value)
        return fills

    def _say(self, text: str, fills: Fills) -> str:
        text = _CHOICE.sub(lambda found: self._chance.choice(found[1].split("/")), text)
        text = _SLOT.sub(lambda found: fills[found[1] + found[2]], text)
        return text[0].upper() + text[1:]

    def _family(self) -> tuple[list[Intent], Fills]:
        intents = self._chance.choice(self._families)
        return intents, self._fills(intents)

    def _paraphrase(self) -> Pair | None:
        intents, fills = self._family()
        intent = self._chance.choice(intents)
        one, other = (self._say(self._chance.choice(intent), fills) for _ in range(2))
        return Pair(one, self._edits.reworded(other), True, "paraphrase")

    def _phrased(self) -> Pair | None:
        """Two phrasings of a group, which share less of their words than those of an intent."""
        group, fills = self._group()
        one, other = (self._say(text, fills) for text in self._chance.sample(group.same, 2))
        return Pair(one, self._edits.reworded(other), True, "group")

    def _near(self) -> Pair | None:
        group, fills = self._group()
        one = group.same[0] if self._chance.random() < 0.7 else self._chance.choice(group.same)
        return Pair(self._say(one, fills), self._say(self._chance.choice(group.near), fills), False, "group")

    def _group(self) -> tuple[Group, Fills]:
        group = self._chance.choice(self._groups)
        return group, self._fills([group.same, group.near])

    def _sibling(self) -> Pair | None:
        """Another intent of the family: another attribute, the opposite, the other direction."""
        intents, fills = self._family()
        if len(intents) < 2:
            return None
        at = self._chance.randrange(len(intents))
        near = [other for other in (at - 1, at + 1) if 0 <= other < len(intents)]
        pool = near if self._chance.random() < 0.5 else [other for other in range(len(intents)) if other != at]
        place = self._chance.randrange(8)  # phrasings stand in parallel: the same place differs in little
        one, two = intents[at], intents[self._chance.choice(pool)]
        if self._chance.random() < 0.6:
            return Pair(
                self._say(one[place % len(one)], fills), self._say(two[place % len(two)], fills), False, "sibling"
            )
        return Pair(
            self._say(self._chance.choice(one), fills), self._say(self._chance.choice(two), fills), False, "sibling"
        )

    def _slot(self) -> Pair | None:
        intents, fills = self._family()
        intent = self._chance.choice(intents)
        one, other = (self._chance.choice(intent), self._chance.choice(intent))
        used = _SLOT.findall(one)
        if not used:
            return None
        name, second = self._chance.choice(used)
        changed = {**fills, name + second: self._value(name, self._chance.random() < 0.3)}
        return Pair(self._say(one, fills), self._say(other, changed), changed == fills, "slot")

    def _swapped(self) -> Pair | None:
        """Two fills change places, in an intent that names both."""
        intents, fills = self._family()
        intent = self._chance.choice(intents)
        doubled = [name for name, second in _SLOT.findall(intent[0]) if second]
        if not doubled or re.search(
            r"together|difference|differ|[Cc]ombine|both|met\b|between|times|plus|know", " ".join(intent)
        ):
            return None
        name = doubled[0]
        turned = {**fills, name: fills[name + "2"], name + "2": fills[name]}
        one, other = (self._chance.choice(intent), self._chance.choice(intent))
        return Pair(self._say(one, fills), self._say(other, turned), False, "order")

    def _condition(self) -> Pair | None:
        intents, fills = self._family()
        intent = self._chance.choice(intents)
        one, other = (self._say(self._chance.choice(intent), fills) for _ in range(2))
        return Pair(*self._edits.conditions(one, other), "condition")

    def _edited(self) -> Pair | None:
        """One word or a little more is changed, by rule, in any text."""
        text = self._statements.sentence() if self._chance.random() < 0.4 else ""
        if not text:
            intents, fills = self._family()
            text = self._say(self._chance.choice(self._chance.choice(intents)), fills)
        edited = self._edits.changed(text, self._words)
        return None if edited is None else Pair(text, edited, False, "edit")

    def _statement(self) -> Pair | None:
        return Pair(*self._statements.pair(), "statement")

    def _unrelated(self) -> Pair | None:
        intents, fills = self._family()
        others, other_fills = self._family()
        if intents is others:
            return None
        one = self._say(self._chance.choice(self._chance.choice(intents)), fills)
        return Pair(one, self._say(self._chance.choice(self._chance.choice(others)), other_fills), False, "unrelated")


def _of_part(values: list[str], part: Part) -> list[str]:
    kept = [value for value in values if part_of(value) is part]
    return kept if len(kept) > 2 else values
