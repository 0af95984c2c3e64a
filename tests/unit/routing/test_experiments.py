"""Which weights hold when, who may choose an arm, and for whom an arm is drawn."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from extproc.config.experiments import Experiment as Settings
from extproc.config.experiments import Sticky
from extproc.dialects.interface import RequestHead
from extproc.dialects.openai_requests import ChatRequest
from extproc.policies.route_facts import subject_of
from extproc.principal import Principal
from extproc.routing.experiments import Change, Experiment, experiment_of

ADA = Principal("ada", "red", "pro", frozenset({"*"}))
BOB = Principal("bob", "red", "pro", frozenset({"*"}))
EVE = Principal("eve", "blue", "pro", frozenset({"*"}))


def settings(**more: Any) -> Settings:
    arms = {"a": {"pool": "p", "weight": 90}, "b": {"pool": "q", "weight": 10}, "c": {"model": "m", "weight": 0}}
    return Settings.model_validate_json(json.dumps({"arms": arms, "control": "a", **more}))


def experiment(**more: Any) -> Experiment:
    return experiment_of("x", settings(**more))


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def test_a_ramp_changes_what_it_names_from_its_moment_on() -> None:
    one = experiment(
        ramp=[
            {"at": "2026-12-01T00:00:00Z", "weights": {"b": 30}},
            {"at": "2026-12-02T00:00:00+02:00", "weights": {"a": 0, "c": 5}},
        ]
    )
    assert one.configured(at("2026-11-30T23:59:59+00:00")) == {"a": 90, "b": 10, "c": 0}
    assert one.configured(at("2026-12-01T00:00:00+00:00")) == {"a": 90, "b": 30, "c": 0}
    assert one.configured(at("2026-12-01T21:59:59+00:00")) == {"a": 90, "b": 30, "c": 0}
    assert one.configured(at("2026-12-01T22:00:00+00:00")) == {"a": 0, "b": 30, "c": 5}


def test_what_is_said_while_running_holds_until_it_is_described_anew() -> None:
    one = experiment()
    said = Change(one.fingerprint, {"a": 1.0, "b": 1.0, "c": 1.0}, "ab set", 0.0, 0.0)
    assert one.in_force(said, 5.0) == said.weights
    assert one.in_force(None, 5.0) == {"a": 90, "b": 10, "c": 0}
    for changed in (
        {"salt": "other"},
        {"arms": {"a": {"pool": "p", "weight": 89}, "b": {"pool": "q", "weight": 10}, "c": {"model": "m"}}},
        {"ramp": [{"at": "2026-12-01T00:00:00Z", "weights": {"b": 30}}]},
    ):
        other = experiment(**changed)
        assert other.in_force(said, 5.0) == other.configured(5.0)
    assert experiment(testers={"pinned": {"ada": "b"}}).in_force(said, 5.0) == said.weights


def test_who_may_choose() -> None:
    one = experiment(testers={"pinned": {"ada": "c"}, "header": "x-arm", "principals": ["bob"], "teams": ["qa"]})
    assert one.chosen_by_tester("ada", "red", {"x-arm": "b"}) == "c"
    assert one.chosen_by_tester("bob", "red", {"x-arm": "b"}) == "b"
    assert one.chosen_by_tester("zoe", "qa", {"x-arm": "b"}) == "b"
    assert one.chosen_by_tester("eve", "red", {"x-arm": "b"}) is None
    assert one.chosen_by_tester("bob", "red", {"x-arm": "nothing"}) is None
    assert one.chosen_by_tester("bob", "red", {}) is None


def subject(sticky: Sticky, who: Principal = ADA, headers: dict[str, str] | None = None, **fields: Any) -> str:
    messages = fields.pop("messages", [{"role": "user", "content": "Hi"}])
    request = ChatRequest({"model": "m", "messages": messages, **fields})
    more = {"header": "x-customer"} if sticky is Sticky.HEADER else {}
    one = experiment(sticky=sticky, **more)
    head = RequestHead("POST", "/", {"x-request-id": "1", **(headers or {})})
    return subject_of(one, request, head.headers, who)


def test_a_key_is_one_subject_whatever_it_says() -> None:
    assert subject(Sticky.KEY) == subject(Sticky.KEY, user="u", headers={"x-session-id": "s"})
    assert subject(Sticky.KEY) != subject(Sticky.KEY, BOB)


@pytest.mark.parametrize("field", ["user", "safety_identifier"])
def test_a_user_is_one_subject_with_any_key_of_the_team(field: str) -> None:
    assert subject(Sticky.USER, ADA, **{field: "u"}) == subject(Sticky.USER, BOB, **{field: "u"})
    assert subject(Sticky.USER, ADA, **{field: "u"}) != subject(Sticky.USER, ADA, **{field: "v"})
    assert subject(Sticky.USER, ADA, **{field: "u"}) != subject(Sticky.USER, EVE, **{field: "u"})


def test_a_conversation_is_one_subject_from_turn_to_turn() -> None:
    first = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    later = [*first, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "More"}]
    other = [first[0], {"role": "user", "content": "Ho"}]
    assert subject(Sticky.SESSION, messages=first) == subject(Sticky.SESSION, messages=later)
    assert subject(Sticky.SESSION, messages=first) != subject(Sticky.SESSION, messages=other)
    named = {"x-session-id": "7"}
    assert subject(Sticky.SESSION, headers=named, messages=first) == subject(
        Sticky.SESSION, headers=named, messages=other
    )


def test_a_header_and_each_request() -> None:
    one, other = {"x-customer": "1"}, {"x-customer": "2"}
    assert subject(Sticky.HEADER, headers=one) == subject(Sticky.HEADER, BOB, headers=one)
    assert subject(Sticky.HEADER, headers=one) != subject(Sticky.HEADER, headers=other)
    assert subject(Sticky.REQUEST) != subject(Sticky.REQUEST, headers={"x-request-id": "2"})


def test_what_has_no_name_goes_by_its_key() -> None:
    assert subject(Sticky.USER) == subject(Sticky.HEADER) == subject(Sticky.KEY)
    assert subject(Sticky.USER, user="") == subject(Sticky.KEY)
