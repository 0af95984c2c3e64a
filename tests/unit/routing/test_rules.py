"""The first rule whose conditions all hold, each condition by itself, and that nothing dear is asked for in vain."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from extproc.config.rules import Rule
from extproc.operation import Operation
from extproc.routing.rules import CompiledRule, Condition, Facts, Need, Rules, compiled, with_known


def rule(name: str = "r", **when: Any) -> Rule:
    return Rule.model_validate_json(json.dumps({"name": name, "when": when, "to": {"pool": "big"}}))


def facts(**changed: Any) -> Facts:
    known: dict[str, Any] = {
        "model": "m", "operation": Operation.CHAT, "principal": "ada", "team": "red", "tier": "pro",
        "headers": {"x-app": "web"}, "images": False, "tools": False, "now_s": 0.0,
    }  # fmt: skip
    return Facts(**{**known, **changed})


def failing(one: Rule, about: Facts) -> object:
    return compiled(one, lambda *_: True).failing(about)


@pytest.mark.parametrize(
    ("when", "yes", "no"),
    [
        ({"models": ["m", "n"]}, {}, {"model": "o"}),
        ({"principals": ["ada"]}, {}, {"principal": "eve"}),
        ({"teams": ["red"]}, {}, {"team": "blue"}),
        ({"tiers": ["pro"]}, {}, {"tier": "free"}),
        ({"headers": {"x-app": "web"}}, {}, {"headers": {"x-app": "phone"}}),
        ({"headers": {"x-app": "*"}}, {"headers": {"x-app": ""}}, {"headers": {}}),
        ({"images": True}, {"images": True}, {}),
        ({"images": False}, {}, {"images": True}),
        ({"tools": True}, {"tools": True}, {}),
        ({"prompt_tokens": {"min": 5}}, {"prompt_tokens": 5}, {"prompt_tokens": 4}),
        ({"prompt_tokens": {"max": 5}}, {"prompt_tokens": 5}, {"prompt_tokens": 6}),
        ({"prompt_tokens": {}}, {"prompt_tokens": 0}, {"prompt_tokens": None}),
        ({"complexity": {"min": 0.5}}, {"complexity": 0.5}, {"complexity": 0.4}),
        ({"complexity": {}}, {"complexity": 0.0}, {"complexity": None}),
    ],
)
def test_each_condition(when: dict[str, Any], yes: dict[str, Any], no: dict[str, Any]) -> None:
    (name,) = when
    assert failing(rule(**when), facts(**yes)) is None
    assert failing(rule(**when), facts(**no)) == Condition(name)


def test_the_first_rule_wins_and_none_may() -> None:
    rules = Rules([rule("a", teams=["blue"]), rule("b", tiers=["pro"]), rule("c")], lambda *_: True)
    first = rules.first(facts())
    assert isinstance(first, CompiledRule)
    assert first.name == "b"
    assert Rules([rule("a", teams=["blue"])], lambda *_: True).first(facts()) is None


def test_what_is_dear_is_asked_for_only_when_the_rest_holds() -> None:
    rules = Rules(
        [
            rule("other-team", teams=["blue"], prompt_tokens={"min": 1}, complexity={"min": 0.1}),
            rule("long", prompt_tokens={"min": 100}),
            rule("hard", complexity={"min": 0.5}),
        ],
        lambda *_: True,
    )
    known = facts()
    assert rules.first(known) is Need.PROMPT_TOKENS
    known = with_known(known, Need.PROMPT_TOKENS, 5)
    assert rules.first(known) is Need.COMPLEXITY
    known = with_known(known, Need.COMPLEXITY, 0.9)
    found = rules.first(known)
    assert isinstance(found, CompiledRule)
    assert found.name == "hard"
    long = rules.first(with_known(facts(), Need.PROMPT_TOKENS, 100))
    assert isinstance(long, CompiledRule)
    assert long.name == "long"


def test_a_rule_whose_target_cannot_serve_it_is_passed_over() -> None:
    def serves(_to: object, about: Facts) -> bool:
        return about.operation is Operation.CHAT

    one = compiled(rule(), serves)
    assert one.failing(facts()) is None
    assert one.failing(facts(operation=Operation.EMBEDDINGS)) == Condition.TARGET


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("window", "moment", "open_"),
    [
        ({"from": "09:00", "until": "17:00"}, "2026-11-23T09:00+00:00", True),
        ({"from": "09:00", "until": "17:00"}, "2026-11-23T17:00+00:00", False),
        ({"from": "22:00", "until": "06:00"}, "2026-11-23T23:59+00:00", True),
        ({"from": "22:00", "until": "06:00"}, "2026-11-23T05:59+00:00", True),
        ({"from": "22:00", "until": "06:00"}, "2026-11-23T06:00+00:00", False),
        # Monday's window lasts until Tuesday morning, and Sunday's is not Monday's.
        ({"from": "22:00", "until": "06:00", "days": ["mon"]}, "2026-11-24T03:00+00:00", True),
        ({"from": "22:00", "until": "06:00", "days": ["mon"]}, "2026-11-23T03:00+00:00", False),
        ({"from": "22:00", "until": "06:00", "days": ["sun"]}, "2026-11-23T03:00+00:00", True),
        # Berlin is an hour ahead in winter and two in summer.
        ({"from": "08:00", "until": "09:00", "zone": "Europe/Berlin"}, "2026-11-23T07:30+00:00", True),
        ({"from": "08:00", "until": "09:00", "zone": "Europe/Berlin"}, "2026-07-23T07:30+00:00", False),
        ({"from": "08:00", "until": "09:00", "zone": "Europe/Berlin"}, "2026-07-23T06:30+00:00", True),
    ],
)
def test_time_of_day(window: dict[str, Any], moment: str, open_: bool) -> None:
    expected = None if open_ else Condition.TIME_OF_DAY
    assert failing(rule(time_of_day=window), facts(now_s=at(moment))) == expected
