"""Experiments over the admin API: weights are changed, put back and on record, and reports come from the ledger."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from extproc.stores.spool import SpoolWriter
from tests.helpers.administered import AdministeredService, administered
from tests.helpers.processes import wait_until
from tests.helpers.redis import RedisServer

SPLIT = "/api/v1/experiments/split"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdministeredService]:
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    with administered(tmp_path_factory.mktemp("service"), redis.url) as running:
        yield running
    redis.close()


@pytest.fixture
def http(service: AdministeredService) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client
        client.delete(f"{SPLIT}/weights")


def weights(experiment: dict[str, Any]) -> dict[str, tuple[float, str | None]]:
    return {arm["name"]: (arm["weight"], arm["taken_out"]) for arm in experiment["arms"]}


def listed(http: httpx.Client) -> dict[str, Any]:
    (only,) = http.get("/api/v1/experiments").json()["experiments"]
    assert isinstance(only, dict)
    return only


def audited(service: AdministeredService) -> list[tuple[str, str, str]]:
    lines = "".join(path.read_text() for path in sorted(service.audit.glob("audit-*.jsonl"))).splitlines()
    records = [json.loads(line) for line in lines]
    done = [one for one in records if one["action"] in ("weights_set", "arm_pulled")]
    return [(one["action"], one["actor"], one["subject"]) for one in done]


def error(answer: httpx.Response) -> tuple[int, str, str | None]:
    said = answer.json()["error"]
    return answer.status_code, said["code"], said["param"]


def test_weights_are_set_seen_cleared_and_on_record(http: httpx.Client, service: AdministeredService) -> None:
    began = len(audited(service))
    before = listed(http)
    assert (before["by"], weights(before)) == ("gateway.yaml", {"old": (90, None), "new": (10, None)})
    assert [arm["share"] for arm in before["arms"]] == [0.9, 0.1]
    assert before["guardrails"][0] == {
        "metric": "error_rate", "above": None, "worse_by": 0.05, "min_requests": 10, "alpha": 0.01,
    }  # fmt: skip
    changed = http.post(f"{SPLIT}/weights", json={"weights": {"new": 30}})
    assert (changed.status_code, weights(changed.json())) == (200, {"old": (90, None), "new": (30, None)})
    assert listed(http) == changed.json()
    assert changed.json()["by"] == "admin-api"
    assert http.delete(f"{SPLIT}/weights").json() == before == listed(http)
    actor = "admin-api@127.0.0.1"
    assert audited(service)[began:] == [
        ("weights_set", actor, "split old=90 new=30"),
        ("weights_set", actor, "split gateway.yaml"),
    ]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (SPLIT, {"weights": {"third": 1}}, (409, "impossible_weights", "weights")),
        (SPLIT, {"weights": {"old": 0, "new": 0}}, (409, "impossible_weights", "weights")),
        (SPLIT, {"weights": {"old": -1}}, (400, "invalid_request", "weights[...]")),
        (SPLIT, {"weights": {}}, (400, "invalid_request", "weights")),
        (SPLIT, {}, (400, "invalid_request", None)),
        (SPLIT, {"weights": {"old": 1}, "experiment": "split"}, (400, "invalid_request", "experiment")),
        ("/api/v1/experiments/none", {"weights": {"old": 1}}, (404, "no_such_experiment", "experiment")),
        ("/api/v1/experiments/a%0A", {"weights": {"old": 1}}, (400, "invalid_request", "experiment")),
    ],
)
def test_what_cannot_be_is_refused_and_not_on_record(
    http: httpx.Client, service: AdministeredService, path: str, body: Any, expected: tuple[int, str, str | None]
) -> None:
    began, before = len(audited(service)), listed(http)
    assert error(http.post(f"{path}/weights", json=body)) == expected
    assert listed(http) == before
    assert len(audited(service)) == began


def test_without_its_audit_log_no_weight_is_changed(http: httpx.Client, service: AdministeredService) -> None:
    lock = service.audit / "lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    try:
        answer = http.post(f"{SPLIT}/weights", json={"weights": {"new": 50}})
        assert error(answer) == (503, "audit_unavailable", None)
    finally:
        lock.rmdir()
    assert listed(http)["by"] == "gateway.yaml"


def test_a_report_a_guardrail_and_a_persons_other_opinion(http: httpx.Client, service: AdministeredService) -> None:
    """Those of the new arm all fail: the report shows it, the guardrail acts, a person puts it back."""
    http.delete(f"{SPLIT}/weights")
    began_s = time.time()
    spool(service.spool, [request(number, began_s) for number in range(40)])
    asked: dict[str, str | float] = {"since": began_s - 1, "unit": "request"}

    def report() -> dict[str, Any]:
        told = http.get(f"{SPLIT}/report", params=asked)
        assert told.status_code == 200, told.text
        shown: dict[str, Any] = told.json()
        return shown

    assert wait_until(lambda: sum(arm["requests"] for arm in report()["arms"]) == 40, 15.0)
    old, new = report()["arms"]
    assert (old["name"], old["metrics"]["error_rate"]["value"]) == ("old", 0.0)
    worse = new["metrics"]["error_rate"]
    assert (worse["observations"], worse["value"], worse["difference"]) == (20, 1.0, 1.0)
    assert worse["p"] < 0.01 < worse["interval"]["low"] < worse["interval"]["high"] <= 1.0
    assert old["cost"] == {"EUR": pytest.approx(20e-6)}
    assert wait_until(lambda: weights(listed(http))["new"][0] == 0, 15.0)
    taken_out = listed(http)
    assert taken_out["by"] == "guardrail"
    assert weights(taken_out)["new"][1].startswith("error_rate 1.0000, more than 0.05 above")  # type: ignore[union-attr]
    assert wait_until(lambda: ("arm_pulled", "service", "split/new") in audited(service), 10.0)
    again = http.post(f"{SPLIT}/weights", json={"weights": {"new": 5}}).json()
    assert weights(again) == {"old": (90, None), "new": (5, None)}


def test_a_report_needs_an_experiment_and_an_alpha(http: httpx.Client) -> None:
    assert error(http.get("/api/v1/experiments/none/report")) == (404, "no_such_experiment", "experiment")
    assert error(http.get(f"{SPLIT}/report", params={"alpha": 0})) == (400, "invalid_request", "alpha")
    assert error(http.get(f"{SPLIT}/report", params={"unit": "user"})) == (400, "invalid_request", "unit")


def request(number: int, time_s: float) -> dict[str, Any]:
    arm = ("old", "new")[number % 2]
    return {
        "id": f"report-{number}", "time": time_s, "team": "t", "principal": "robot", "model": "talker",
        "arm": f"split/{arm}", "subject": f"{number:016x}", "prompt_tokens": 10, "completion_tokens": 5,
        "price_nano": 1000, "currency": "EUR", "status": 200, "duration_ms": 7.5, "cache": "miss",
        "termination": "COMPLETED" if arm == "old" else "UPSTREAM_ERROR",
    }  # fmt: skip


def spool(directory: pathlib.Path, events: list[dict[str, Any]]) -> None:
    writer = SpoolWriter(directory, "test", 1 << 30)
    for event in events:
        assert writer.append(json.dumps(event).encode() + b"\n")
    writer.close()
