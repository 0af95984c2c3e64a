"""Which rule a request meets: the first whose conditions all hold. Pure: the same facts give the same rule.

What is dear to know (the prompt's tokens, the encoder's word on its complexity) is asked for only when a rule needs it
whose other conditions all hold: `first` then answers with a `Need`, and is asked again with that known.

Must not know: where facts come from, what a target is.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import msgspec
from msgspec import UNSET, Struct, UnsetType

from extproc.config.rules import ComplexityRange, Conditions, Day, Rule, Target, TimeOfDay, TokenRange, zone_of
from extproc.operation import Operation

_DAYS = tuple(Day)
_ANY = "*"


class Condition(StrEnum):
    """What a rule can fail on: its conditions by their names in gateway.yaml, in the order in which they are tried."""

    TARGET = "to"
    MODELS = "models"
    PRINCIPALS = "principals"
    TEAMS = "teams"
    TIERS = "tiers"
    HEADERS = "headers"
    IMAGES = "images"
    TOOLS = "tools"
    TIME_OF_DAY = "time_of_day"
    PROMPT_TOKENS = "prompt_tokens"
    COMPLEXITY = "complexity"


class Need(StrEnum):
    """A fact without which nobody can say."""

    PROMPT_TOKENS = "prompt_tokens"
    COMPLEXITY = "complexity"


class Facts(Struct):
    """A request as rules see it. `now_s`: Unix seconds; `reachable`: the pools that Envoy can route to (None: all).
    UNSET is not asked yet; None is asked, and nobody knows."""

    model: str
    operation: Operation
    principal: str
    team: str
    tier: str
    headers: Mapping[str, str]
    images: bool
    tools: bool
    now_s: float
    reachable: frozenset[str] | None = None
    prompt_tokens: int | UnsetType | None = UNSET
    complexity: float | UnsetType | None = UNSET


Test = Callable[[Facts], bool | Need]
Serves = Callable[[Target, Facts], bool]
"""Whether a target can serve a request."""


class CompiledRule(Struct, frozen=True):
    """A rule, and a test for each of its conditions."""

    name: str
    to: Target
    tests: tuple[tuple[Condition, Test], ...]

    def failing(self, facts: Facts) -> Condition | Need | None:
        """The first condition that does not hold, or what has to be known before that can be said; None: all hold."""
        for condition, test in self.tests:
            held = test(facts)
            if held is True:
                continue
            return condition if held is False else held
        return None


class Rules:
    """All rules of one configuration."""

    def __init__(self, rules: Sequence[Rule], serves: Serves) -> None:
        self.rules = tuple(compiled(rule, serves) for rule in rules)

    def first(self, facts: Facts) -> CompiledRule | Need | None:
        """The first rule that the request meets; None: it meets none."""
        for rule in self.rules:
            failing = rule.failing(facts)
            if failing is None:
                return rule
            if type(failing) is Need:
                return failing
        return None


def compiled(rule: Rule, serves: Serves) -> CompiledRule:
    """`rule`, ready to be tried. A request that its target can't serve does not meet it."""

    def is_served(facts: Facts) -> bool:
        return serves(rule.to, facts)

    return CompiledRule(rule.name, rule.to, ((Condition.TARGET, is_served), *_tests(rule.when)))


def _tests(when: Conditions) -> list[tuple[Condition, Test]]:
    """Cheap ones first."""
    tests: list[tuple[Condition, Test]] = [
        (condition, _is_one_of(field, frozenset(wanted)))
        for condition, field, wanted in (
            (Condition.MODELS, "model", when.models),
            (Condition.PRINCIPALS, "principal", when.principals),
            (Condition.TEAMS, "team", when.teams),
            (Condition.TIERS, "tier", when.tiers),
        )
        if wanted is not None
    ]
    if when.headers is not None:
        tests.append((Condition.HEADERS, _has_headers(tuple(when.headers.items()))))
    for condition, field, present in (
        (Condition.IMAGES, "images", when.images),
        (Condition.TOOLS, "tools", when.tools),
    ):
        if present is not None:
            tests.append((condition, _is_one_of(field, frozenset({present}))))
    if when.time_of_day is not None:
        tests.append((Condition.TIME_OF_DAY, _is_within_window(when.time_of_day)))
    if when.prompt_tokens is not None:
        tests.append((Condition.PROMPT_TOKENS, _is_within("prompt_tokens", Need.PROMPT_TOKENS, when.prompt_tokens)))
    if when.complexity is not None:
        tests.append((Condition.COMPLEXITY, _is_within("complexity", Need.COMPLEXITY, when.complexity)))
    return tests


def _is_one_of(field: str, wanted: frozenset[object]) -> Test:
    return lambda facts: getattr(facts, field) in wanted


def _has_headers(wanted: Sequence[tuple[str, str]]) -> Test:
    def test(facts: Facts) -> bool:
        headers = facts.headers
        return all(name in headers and value in (_ANY, headers[name]) for name, value in wanted)

    return test


def _is_within(field: str, need: Need, wanted: TokenRange | ComplexityRange) -> Test:
    def test(facts: Facts) -> bool | Need:
        value: float | UnsetType | None = getattr(facts, field)
        if value is UNSET:
            return need
        return value is not None and wanted.min <= value and (wanted.max is None or value <= wanted.max)

    return test


def _is_within_window(window: TimeOfDay) -> Test:
    zone, opens, closes = zone_of(window.zone), _minutes(window.from_), _minutes(window.until)
    days = frozenset(window.days)

    def test(facts: Facts) -> bool:
        now = datetime.datetime.fromtimestamp(facts.now_s, zone)
        minute, day = now.hour * 60 + now.minute, now.weekday()
        if opens < closes:
            return opens <= minute < closes and _DAYS[day] in days
        if minute >= opens:
            return _DAYS[day] in days
        return minute < closes and _DAYS[day - 1] in days  # it opened yesterday

    return test


def _minutes(clock_time: str) -> int:
    hours, minutes = clock_time.split(":")
    return int(hours) * 60 + int(minutes)


def with_known(facts: Facts, need: Need, value: float | None) -> Facts:
    """The same facts and one more; `value` None: nobody knows."""
    return msgspec.structs.replace(facts, **{need.value: value})
