"""Which records count for what, when a guardrail speaks, and what a report says."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from extproc.cli.ab_output import show
from extproc.config.experiments import Experiment
from extproc.experiments.guardrails import Tally
from extproc.experiments.outcomes import outcome_of, rating_of
from extproc.experiments.report import Observations, Unit


def record(number: int, arm: str = "a", **changed: Any) -> dict[str, str]:
    """As the ledger gives it: all text."""
    written = {
        "id": f"r{number}", "time": number, "team": "t", "arm": f"x/{arm}", "subject": f"s{number}",
        "termination": "COMPLETED", "duration_ms": 100 + number, "ttft_ms": 10, "completion_tokens": 5,
        "price_nano": 1000, "currency": "USD", "cache": "miss", "reason": "", "guard_over": "",
    }  # fmt: skip
    return {name: str(value) for name, value in (written | changed).items()}


def outcome(**changed: Any):  # type: ignore[no-untyped-def]
    found = outcome_of(record(1, **changed), "x")
    assert found is not None
    return found


def test_records_of_others_are_not_of_this_experiment() -> None:
    assert outcome_of(record(1) | {"arm": "xy/a"}, "x") is None
    assert outcome_of(record(1) | {"arm": ""}, "x") is None


@pytest.mark.parametrize(
    ("termination", "failed"),
    [
        ("COMPLETED", False),
        ("CANCELLED", False),
        ("UPSTREAM_ERROR", True),
        ("INTERNAL_ERROR", True),
        ("REJECTED", None),
    ],
)
def test_what_is_a_failure(termination: str, failed: bool | None) -> None:
    one = outcome(termination=termination)
    assert one.failed is failed
    assert (one.latency_ms is None) == (termination != "COMPLETED")


@pytest.mark.parametrize("termination", ["COMPLETED", "CANCELLED", "REJECTED", "UPSTREAM_ERROR"])
def test_what_another_pool_had_to_answer_is_the_arms_failure(termination: str) -> None:
    one = outcome(termination=termination, fallback_from="next", pool="demo")
    assert (one.failed, one.latency_ms, one.ttft_ms) == (True, None, None)


def test_an_arm_whose_pool_is_down_behind_a_fallback_is_seen_and_taken_out() -> None:
    """Every request of it was answered, and quickly, by another pool."""
    dead = {"fallback_from": "next", "pool": "demo", "duration_ms": 1}
    settings = guarded(metric="error_rate", worse_by=0.05)
    assert list(tallied(settings, dead, of_control=0, of_arm=60).broken()) == ["b"]
    rated = record(9) | {"arm": "", "rated": "r3", "score": "1"}
    arm = observed(*(record(number, "b", **dead) for number in range(5)), rated).report("a", Unit.SUBJECT, 0.05)[1]
    assert (arm.requests, arm.metrics["error_rate"].value) == (5, 1.0)
    for metric in ("latency_ms_p50", "ttft_ms_p95", "completion_tokens", "cost", "feedback_score"):
        assert arm.metrics[metric].observations == 0, metric


def test_what_a_cache_knew_says_nothing_of_a_model() -> None:
    one = outcome(cache="hit")
    assert (one.failed, one.latency_ms, one.is_whole, one.cached) == (None, None, False, True)
    assert outcome(cache="bypass").cached is None


def test_what_a_guard_found() -> None:
    assert outcome(guard_over="user").guarded
    assert outcome(termination="REJECTED", reason="injection").guarded
    assert not outcome(termination="REJECTED", reason="rate_limit_exceeded").guarded


def test_feedback() -> None:
    said = record(9) | {"arm": "", "rated": "r1", "score": "0.25"}
    found = rating_of(said)
    assert found is not None
    assert (found.request, found.team, found.score) == ("r1", "t", 0.25)
    assert rating_of(said | {"termination": "REJECTED"}) is None
    assert rating_of(record(1)) is None


def guarded(**guardrail: Any) -> Experiment:
    arms = {"a": {"pool": "p"}, "b": {"pool": "p"}}
    written = {"arms": arms, "control": "a", "guardrails": [guardrail]}
    return Experiment.model_validate_json(json.dumps(written))


def tallied(settings: Experiment, bad: dict[str, Any], *, of_control: int, of_arm: int, good: int = 100) -> Tally:
    tally = Tally(settings)
    for arm, count in (("a", of_control), ("b", of_arm)):
        for number in range(good):
            found = outcome_of(record(number, arm, **(bad if number < count else {})), "x")
            assert found is not None
            tally.add(found)
    return tally


@pytest.mark.parametrize(
    ("guardrail", "bad"),
    [
        ({"metric": "error_rate", "worse_by": 0.05}, {"termination": "UPSTREAM_ERROR"}),
        ({"metric": "error_rate", "above": 0.1}, {"termination": "UPSTREAM_ERROR"}),
        ({"metric": "guard_rate", "worse_by": 0.05}, {"guard_over": "user"}),
        ({"metric": "p95_latency_ms", "above": 500}, {"duration_ms": 501}),
    ],
)
def test_guardrails(guardrail: dict[str, Any], bad: dict[str, Any]) -> None:
    settings = guarded(**guardrail)
    assert list(tallied(settings, bad, of_control=1, of_arm=60).broken()) == ["b"]
    assert tallied(settings, bad, of_control=1, of_arm=3).broken() == {}
    few = guarded(**guardrail, min_requests=101)
    assert tallied(few, bad, of_control=1, of_arm=60).broken() == {}


def test_the_control_is_never_taken_out_and_a_bad_day_of_both_is_no_reason() -> None:
    bad = {"termination": "UPSTREAM_ERROR"}
    assert tallied(guarded(metric="error_rate", above=0.1), bad, of_control=90, of_arm=0).broken() == {}
    assert tallied(guarded(metric="error_rate", worse_by=0.05), bad, of_control=60, of_arm=60).broken() == {}


def test_what_testers_send_counts_for_no_guardrail() -> None:
    bad = {"termination": "UPSTREAM_ERROR", "subject": ""}
    assert tallied(guarded(metric="error_rate", above=0.1), bad, of_control=0, of_arm=90).broken() == {}


def observed(*records: dict[str, str]) -> Observations:
    observations = Observations("x", ("a", "b"), 0.0, 1000.0)
    for one in records:
        observations.add(one)
    return observations


def test_a_subjects_first_request_is_what_counts() -> None:
    records = [record(number, "b", subject="same", duration_ms=number) for number in range(10)]
    by_subject, by_request = (observed(*reversed(records)).report("a", unit, 0.05)[1] for unit in Unit)
    assert by_subject.metrics["latency_ms_p50"].observations == 1
    assert by_subject.metrics["latency_ms_p50"].value == 0
    assert by_request.metrics["latency_ms_p50"].observations == 10
    assert (by_subject.requests, by_subject.subjects) == (10, 1)


def test_tokens_are_those_of_all_requests_however_they_ended() -> None:
    ended = ("COMPLETED", "CANCELLED", "UPSTREAM_ERROR", "REJECTED")
    records = [record(n, "b", termination=how, prompt_tokens=10 + n) for n, how in enumerate(ended)]
    arm = observed(*records, record(9, "b", subject="", prompt_tokens=1000)).report("a", Unit.SUBJECT, 0.05)[1]
    assert (arm.prompt_tokens, arm.completion_tokens) == (46, 20)
    assert arm.metrics["completion_tokens"].observations == 1
    out = io.StringIO()
    show("x", [arm], {}, {}, 0.05, "subject", as_json=False, out=out)
    assert "46 prompt and 20 completion tokens" in out.getvalue()


def test_a_report() -> None:
    good = [record(number, "a", duration_ms=100 + number % 7) for number in range(300)]
    slow = [record(300 + number, "b", duration_ms=300 + number % 7) for number in range(300)]
    failed = [record(600 + number, "b", termination="UPSTREAM_ERROR") for number in range(60)]
    tester = record(700, "b", subject="")
    rated = [record(800 + n) | {"arm": "", "rated": f"r{n}", "score": str(n % 2)} for n in range(100)]
    stranger = record(950) | {"arm": "", "rated": "r301", "score": "1", "team": "other"}
    late = record(2000, "b")
    observations = observed(*good, *slow, *failed, tester, *rated, stranger, late)
    control, arm = observations.report("a", Unit.SUBJECT, 0.05)
    assert (control.name, control.requests, arm.requests, arm.by_testers) == ("a", 300, 360, 1)
    errors = arm.metrics["error_rate"]
    assert errors.value == pytest.approx(60 / 360)
    assert errors.difference_interval is not None
    assert errors.difference_interval.low > 0.05
    assert errors.p is not None
    assert errors.p < 1e-6
    assert arm.metrics["latency_ms_p50"].difference == 200
    assert (arm.metrics["latency_ms_p50"].p or 0) < 0.01
    assert (control.metrics["feedback_score"].observations, control.metrics["feedback_score"].value) == (100, 0.5)
    assert arm.metrics["feedback_score"].observations == 0
    assert control.cost == {"USD": pytest.approx(300e-6)}


@pytest.mark.parametrize("as_json", [True, False])
def test_a_report_of_nothing_can_be_shown(as_json: bool) -> None:
    out = io.StringIO()
    arms = observed().report("a", Unit.SUBJECT, 0.05)
    show("x", arms, {"a": 1.0}, {"b": "error_rate"}, 0.05, "subject", as_json=as_json, out=out)
    if as_json:
        told = json.loads(out.getvalue())
        assert told["arms"][1]["taken_out"] == "error_rate"
        assert told["arms"][0]["metrics"]["latency_ms_p95"]["interval"] == {"low": 0.0, "high": None}
    else:
        assert "taken out: error_rate" in out.getvalue()
