"""Labelled texts for the three heads. Owns: how phrases are composed into texts, in which mixture, with which labels.

Everything follows from a part (training or held out), a size and a seed. Knows nothing of tokens or of the model.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from extproc.inference.training.grammar import Draft, Entity, Grammar, Part, load
from extproc.inference.training.names import Names

_LABEL_OF = {"FIRST": "PERSON", "LAST": "PERSON", "CITY": "LOCATION", "COUNTRY": "LOCATION"}
ENTITY_FILES = ("entities",)
PROMPT_FILES = ("attacks", "benign", "shared", "complexity")
_COMPLEXITY = {"easy": 0.05, "middle": 0.4, "complex": 0.95}


@dataclass
class Example:
    """A text and what is known about it: None where a head has nothing to learn from it. `kind` is for the report."""

    text: str
    kind: str
    entities: list[Entity] | None = None
    injection: float | None = None
    complexity: float | None = None


class Composer:
    """Draws examples of one part. One seed, one sequence of examples."""

    def __init__(self, part: Part, seed: int) -> None:
        self._chance = random.Random(f"{part.value} {seed}")  # noqa: S311 (no secret)
        names = Names(part)
        self._entities = Grammar(load(*ENTITY_FILES), part, names.provide)
        self._prompts = Grammar(load(*PROMPT_FILES), part, names.provide)

    def examples(self, entities: int, guard: int, complexity: int) -> list[Example]:
        """So many examples for each head, shuffled."""
        made = [self._entity_example() for _ in range(entities)]
        made += [self._guard_example() for _ in range(guard)]
        made += [self._complexity_example() for _ in range(complexity)]
        self._chance.shuffle(made)
        return made

    def _entity_example(self) -> Example:
        draft = Draft()
        separator = self._chance.choice([" ", " ", "\n", "\n\n"])
        for number in range(self._chance.choice([1, 1, 1, 2, 2, 3, 4, 6])):
            if number:
                draft.write(separator)
            rule = "plain" if self._chance.random() < 0.3 else "sentence"
            _append(draft, self._entities.draw(rule, self._chance))
        injection = 0.0 if self._chance.random() < 0.25 else None
        return Example(draft.text, "entities", draft.entities, injection)

    def _guard_example(self) -> Example:
        kind = self._chance.choices(
            ["attack", "indirect", "benign", "hard", "document"], weights=[0.29, 0.12, 0.20, 0.27, 0.12]
        )[0]
        text = self._prompts.say(kind, self._chance)
        if self._chance.random() < 0.15:
            text = self._padded(text)
        injection = 1.0 if kind in ("attack", "indirect") else 0.0
        return Example(_with_typos(text, self._chance), kind, None, injection)

    def _padded(self, text: str) -> str:
        """With harmless text around it: a window of a long prompt or document."""
        padding = [self._prompts.say("document", self._chance) for _ in range(self._chance.randint(1, 2))]
        padding.insert(self._chance.randint(0, len(padding)), text)
        return self._chance.choice(["\n", "\n\n", " "]).join(padding)

    def _complexity_example(self) -> Example:
        kind = self._chance.choice(list(_COMPLEXITY))
        text = self._prompts.say(kind, self._chance)
        return Example(text, kind, None, 0.0, _COMPLEXITY[kind])


def _append(draft: Draft, more: Draft) -> None:
    start = len(draft.text)
    draft.write(more.text)
    for entity in more.entities:
        label = _LABEL_OF.get(entity.label, entity.label)
        article = len("the ") if more.text.startswith("the ", entity.start) else 0
        draft.entities.append(Entity(entity.start + start + article, entity.end + start, label))


def _with_typos(text: str, chance: random.Random) -> str:
    """Now and then as people type: letters dropped or swapped, no punctuation."""
    kind = chance.random()
    if kind < 0.07:
        return text.replace(",", "").replace(".", "").replace("'", "")
    if kind < 0.14 and len(text) > 10:
        for _ in range(max(1, len(text) // 60)):
            at = chance.randrange(len(text) - 2)
            text = text[:at] + chance.choice([text[at + 1] + text[at], text[at + 1], text[at] * 2]) + text[at + 2 :]
    return text
