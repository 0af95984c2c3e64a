"""Statements and questions built from who did what, where and when: said in several ways (the same), or with roles,
attributes, places or the order of events exchanged (not the same). Owns that small grammar."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_ASKING = (
    "Is it true that {}?", "Explain why {}.", "Write a story in which {}.", "Do you know why {}?", "Tell me more: {}.",
    "Translate into French: {}.", "Where can I read that {}?", "Check this sentence: {}.", "What follows if {}?",
)  # fmt: skip


_JOINED = (
    ("after {a}, {b}", "{b} after {a}", "{a} before {b}", "before {b}, {a}", "{a}, and then {b}"),
    ("because {a}, {b}", "{b} because {a}", "{a}, so {b}", "{b}, since {a}"),
    ("{a}, but {b}", "{a} and {b}", "{b}, while {a}", "{b} and {a}"),
    ("if {a}, {b}", "{b} if {a}", "{b} in case {a}"),
)
"""Ways to say the same of two events; a row each."""
_TWO_FACTS = 2


@dataclass(frozen=True)
class Noun:
    article: str
    adjective: str
    name: str

    def __str__(self) -> str:
        return " ".join(part for part in (self.article, self.adjective, self.name) if part)


@dataclass(frozen=True)
class Event:
    """`verb` is past/participle/infinitive. `place` and `time` may be empty; `to`: a third one, for giving."""

    who: Noun
    verb: str
    whom: Noun
    place: str
    time: str
    to: Noun | None = None


class Statements:
    def __init__(self, chance: random.Random, words: Mapping[str, Sequence[str]], value: Callable[[str], str]) -> None:
        self._chance = chance
        self._words = words
        self._value = value

    def sentence(self) -> str:
        event = self._event()
        return self._finished(self._say(event), 0)

    def pair(self) -> tuple[str, str, bool]:
        frame = self._chance.randrange(2 * len(_ASKING))
        if self._chance.random() < 0.35:
            one, other, same = self._two_events()
        else:
            event = self._event()
            same = self._chance.random() < 0.45
            changed = event if same else self._changed(event)
            if changed == event and not same:
                same = True
            one, other = self._say(event), self._say(changed)
        return self._finished(one, frame), self._finished(other, frame), same

    def _finished(self, text: str, frame: int) -> str:
        if frame < len(_ASKING):
            return _ASKING[frame].format(text)
        return text[0].upper() + text[1:] + "."

    def _from(self, name: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: self._value(found[1]), self._chance.choice(self._words[name]))

    def _person(self) -> Noun:
        if self._chance.random() < 0.45:
            return Noun("", "", self._value("person"))
        article, _, name = self._from("people").partition(" ")
        return Noun(article, self._from("adjectives") if self._chance.random() < 0.25 else "", name)

    def _thing(self) -> Noun:
        return Noun("the", self._from("adjectives") if self._chance.random() < 0.6 else "", self._from("things"))

    def _event(self) -> Event:
        kind = self._chance.random()
        place = self._from("places") if self._chance.random() < 0.6 else ""
        time = self._from("times") if self._chance.random() < 0.6 else ""
        who = self._person()
        while (other := self._person()) == who:
            pass
        if kind < 0.45:
            return Event(who, self._from("transitive"), self._thing(), place, time)
        if kind < 0.85:
            return Event(who, self._from("social"), other, place, time)
        return Event(who, self._from("give"), self._thing(), place, time, other)

    def _say(self, event: Event) -> str:
        past, participle, _ = event.verb.split("/")
        kind = self._chance.random()
        if event.to is not None:
            active = f"{event.who} {past} {event.whom} to {event.to}"
            core = self._chance.choice([active, f"{event.whom} was {participle} to {event.to} by {event.who}"])
        elif kind < 0.5:
            core = f"{event.who} {past} {event.whom}"
        elif kind < 0.85:
            core = f"{event.whom} was {participle} by {event.who}"
        elif kind < 0.93:
            core = f"it was {event.who} who {past} {event.whom}"
        else:
            core = f"the one who {past} {event.whom} was {event.who}"
        adjuncts = [part for part in (event.place, event.time) if part]
        self._chance.shuffle(adjuncts)
        if adjuncts and self._chance.random() < 0.35:
            core = f"{adjuncts.pop()}, {core}"
        return " ".join([core, *adjuncts])

    def _changed(self, event: Event) -> Event:
        who, whom, to = event.who, event.whom, event.to
        options: list[Callable[[Event], Event]] = [self._other_verb, self._other_noun, self._other_adjunct]
        if to is not None:
            options += [lambda event: dataclasses.replace(event, who=to, to=who)] * 4
        elif event.verb in self._words["social"]:
            options += [lambda event: dataclasses.replace(event, who=whom, whom=who)] * 5
        if who.adjective != whom.adjective and whom.article:
            turned_who = dataclasses.replace(who, adjective=whom.adjective, article=who.article or "")
            turned_whom = dataclasses.replace(whom, adjective=who.adjective)
            if who.article:
                options += [lambda event: dataclasses.replace(event, who=turned_who, whom=turned_whom)] * 3
        return self._chance.choice(options)(event)

    def _other_verb(self, event: Event) -> Event:
        for name in ("transitive", "social", "give"):
            if event.verb in self._words[name]:
                return dataclasses.replace(event, verb=self._chance.choice(self._words[name]))
        return event

    def _other_noun(self, event: Event) -> Event:
        kind = self._chance.random()
        if kind < 0.4:
            return dataclasses.replace(event, who=self._person())
        if kind < 0.7:
            return dataclasses.replace(
                event,
                whom=dataclasses.replace(
                    event.whom, adjective=self._from("adjectives"), article=event.whom.article or "the"
                ),
            )
        return dataclasses.replace(
            event, whom=self._thing() if event.verb not in self._words["social"] else self._person()
        )

    def _other_adjunct(self, event: Event) -> Event:
        if self._chance.random() < 0.5:
            return dataclasses.replace(event, place=self._from("places"))
        return dataclasses.replace(event, time=self._from("times"))

    def _two_events(self) -> tuple[str, str, bool]:
        """Before and after, because and so, and two people who each did something."""
        first, second = self._event(), self._event()
        kind = self._chance.randrange(len(_JOINED))
        said = _JOINED[kind]
        one = self._joined(said, first, second)
        same = self._chance.random() < 0.45
        if same:
            return one, self._joined(said, first, second), True
        if kind == _TWO_FACTS or self._chance.random() < 0.5:
            turned = (dataclasses.replace(first, who=second.who), dataclasses.replace(second, who=first.who))
            if turned == (first, second):
                turned = (first, self._event())
        else:
            turned = (second, first)
        return one, self._joined(said, *turned), False

    def _joined(self, said: Sequence[str], one: Event, other: Event) -> str:
        return self._chance.choice(said).format(a=self._say(one), b=self._say(other))
