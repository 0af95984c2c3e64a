"""Small changes to a text: some keep what it asks (typing, politeness, synonyms), some don't (negation, quantity,
scope, a condition more or less). Owns these rules. Pure but for the chance it is given."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

_POLITE = (
    "Please {}", "Can you tell me: {}", "Hi! {}", "Hello, {}", "{} Thanks!", "{} Thank you.", "I have a question. {}",
    "Quick question: {}", "{} please", "Hey, {}", "I was wondering: {}", "Could you help me? {}", "Tell me, {}",
    "{} Any help is appreciated.", "I'd like to know: {}", "So, {}", "{} Please help.", "Good morning! {}",
)  # fmt: skip
_ASKED = (
    (r"^How do I ", ("How can I ", "How would I ", "What's the way to ", "How to ", "How should I ", "Tell me how to ",
                     "how do you ", "What do I have to do to ", "Could you explain how to ", "Is there a way to ")),
    (r"^How does ", ("In what way does ", "Can you explain how does ")),
    (r"^What is ", ("What's ", "Tell me what is ", "Do you know what is ", "Can you tell me what is ")),
    (r"^What are ", ("What're ", "Tell me what are ", "Can you list ", "List ")),
    (r"^Who ", ("Do you know who ", "Can you tell me who ")),
    (r"^When ", ("At what time ", "Do you know when ", "Can you tell me when ")),
    (r"^Where ", ("At which place ", "Do you know where ", "Can you tell me where ")),
    (r"^Why ", ("For what reason ", "How come ", "Can you tell me why ")),
    (r"^Write ", ("Please write ", "Compose ", "Can you write ", "I need you to write ")),
    (r"^Explain ", ("Please explain ", "Can you explain ", "Describe ")),
)  # fmt: skip
_CONTRACTIONS = (
    ("do not", "don't"), ("is not", "isn't"), ("does not", "doesn't"), ("can not", "can't"),
    ("I am", "I'm"), ("I would", "I'd"), ("what is", "what's"), ("it is", "it's"),
    ("are not", "aren't"), ("I have", "I've"),
)  # fmt: skip
_SWAPS = (
    ("can", "must"), ("can", "should"), ("should", "must"), ("may", "must"), ("all", "some"), ("all", "most"),
    ("every", "any"), ("always", "sometimes"), ("always", "never"), ("often", "rarely"), ("more", "less"),
    ("most", "least"), ("before", "after"), ("with", "without"), ("best", "worst"), ("first", "last"),
    ("largest", "smallest"), ("increase", "decrease"), ("add", "remove"), ("start", "stop"), ("open", "close"),
    ("buy", "sell"), ("old", "new"), ("above", "below"), ("inside", "outside"), ("into", "out of"), ("up", "down"),
    ("import", "export"), ("win", "lose"), ("cheap", "expensive"), ("cheapest", "most expensive"), ("high", "low"),
    ("longest", "shortest"), ("earliest", "latest"), ("maximum", "minimum"), ("public", "private"), ("my", "your"),
    ("who", "when"), ("when", "where"), ("where", "why"), ("how", "why"), ("how long", "how often"),
    ("how much", "how many times"),
    ("in", "near"), ("from", "to"), ("and", "or"), ("only", "also"), ("at least", "at most"), ("over", "under"),
    ("install", "uninstall"), ("child", "adult"), ("men", "women"), ("he", "she"), ("his", "her"),
    ("morning", "evening"),
    ("north", "south"), ("east", "west"), ("left", "right"), ("local", "remote"), ("true", "false"),
    ("legal", "illegal"),
    ("was", "will be"), ("did", "will"), ("is", "was"), ("are", "were"), ("allow", "forbid"), ("accept", "reject"),
)  # fmt: skip
_QUALIFIERS = ("only", "never", "not", "first", "almost", "no longer", "still")
_FUNCTION_WORDS = """
a an the of to in on at for and or is are was were be do does did i my you your me it its this that what
which who how when where why can with by from as if has have had will would should could please tell
about
"""


class Edits:
    def __init__(
        self, chance: random.Random, conditions: Sequence[Sequence[str]], synonyms: Sequence[Sequence[str]]
    ) -> None:
        self._chance = chance
        self._conditions = conditions
        self._small = frozenset(_FUNCTION_WORDS.split())
        self._synonyms = {word: [other for other in group if other != word] for group in synonyms for word in group}

    def typed(self, text: str) -> str:
        """The same, as people type it."""
        kind = self._chance.random()
        if kind < 0.15:
            text = text.lower()
        if kind < 0.3:
            text = text.rstrip("?.! ")
        elif kind < 0.36 and len(text) > 30:
            at = self._chance.choice(
                [place for place in range(5, len(text) - 3) if text[place].islower() and text[place + 1].islower()]
                or [0]
            )
            text = (
                text[:at] + self._chance.choice([text[at + 1] + text[at], text[at] * 2 + text[at + 1]]) + text[at + 2 :]
            )
        return text

    def reworded(self, text: str) -> str:
        """The same in other words."""
        if self._chance.random() < 0.35:
            for pattern, others in _ASKED:
                if re.search(pattern, text):
                    text = re.sub(pattern, self._chance.choice(others), text)
                    break
        if self._chance.random() < 0.5:
            text = self._synonymous(text)
        if self._chance.random() < 0.3:
            for long, short in _CONTRACTIONS:
                text = text.replace(long, short) if self._chance.random() < 0.5 else text.replace(short, long)
        if self._chance.random() < 0.25:
            polite = self._chance.choice(_POLITE)
            text = polite.format(
                text if polite[0] == "{" or self._chance.random() < 0.5 else text[0].lower() + text[1:]
            )
        return text

    def _synonymous(self, text: str) -> str:
        words = text.split(" ")
        for place in self._chance.sample(range(len(words)), len(words)):
            bare = words[place].strip("?.,!").lower()
            if bare in self._synonyms and self._chance.random() < 0.6:
                words[place] = words[place].lower().replace(bare, self._chance.choice(self._synonyms[bare]))
        return " ".join(words)

    def conditions(self, one: str, other: str) -> tuple[str, str, bool]:
        """A condition on both in other words (the same), on one only, or another on each."""
        condition, different = self._chance.sample(self._conditions, 2)
        kind = self._chance.random()
        first = self._with(one, self._chance.choice(condition))
        if kind < 0.4:
            return first, self._with(self.reworded(other), self._chance.choice(condition)), True
        if kind < 0.7:
            return first, other, False
        near = self._conditions[(self._conditions.index(condition) + 1) % len(self._conditions)]
        return first, self._with(other, self._chance.choice(near if self._chance.random() < 0.5 else different)), False

    def _with(self, text: str, condition: str) -> str:
        if self._chance.random() < 0.2:
            return f"{condition[0].upper()}{condition[1:]}: {text}"
        bare = text.rstrip("?.! ")
        return f"{bare} {condition}{text[len(bare) :]}"

    def changed(self, text: str, words: Sequence[str]) -> str | None:
        """Something else, by one small change; None where the chosen rule has nothing to change."""
        kind = self._chance.random()
        if kind < 0.4:
            return self._word_swapped_for_its_opposite(text)
        if kind < 0.55:
            return self._qualified(text)
        if kind < 0.8:
            return self._other_word(text, words)
        return self._two_words_exchanged(text)

    def _word_swapped_for_its_opposite(self, text: str) -> str | None:
        for one, other in self._chance.sample(_SWAPS, len(_SWAPS)):
            if self._chance.random() < 0.5:
                one, other = other, one
            if re.search(rf"\b{one}\b", text, re.IGNORECASE):
                return re.sub(rf"\b{one}\b", other, text, count=1, flags=re.IGNORECASE)
        return None

    def _qualified(self, text: str) -> str | None:
        found = re.search(r"\b(do I|can I|I|to|does|did|is|are|was|were|can|should)\b ", text)
        if found is None:
            return None
        return f"{text[: found.end()]}{self._chance.choice(_QUALIFIERS)} {text[found.end() :]}"

    def _content(self, text: str) -> tuple[list[str], list[int]]:
        words = text.split(" ")
        return words, [place for place, word in enumerate(words) if word.isalpha() and word.lower() not in self._small]

    def _other_word(self, text: str, others: Sequence[str]) -> str | None:
        words, content = self._content(text)
        if not content:
            return None
        place = self._chance.choice(content)
        if words[place].lower() in self._synonyms:
            return None
        words[place] = self._chance.choice(others)
        return " ".join(words)

    def _two_words_exchanged(self, text: str) -> str | None:
        words, content = self._content(text)
        if len(content) < 3:
            return None
        one, other = self._chance.sample(content[1:], 2)
        words[one], words[other] = words[other], words[one]
        return " ".join(words)
