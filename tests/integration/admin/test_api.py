"""The admin API as an operator uses it: the real service, a real Redis, a real audit log."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from extproc.audit.verify import verify
from extproc.stores.spool import SpoolWriter
from tests.helpers.administered import AUDIT_SECRET, AdministeredService, administered
from tests.helpers.processes import wait_until
from tests.helpers.redis import RedisServer

TOKEN = "a-token-of-enough-letters"


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


def audited(service: AdministeredService) -> list[dict[str, Any]]:
    """Every record of the audit log, which is as it was written."""
    verify(service.audit, AUDIT_SECRET.encode())
    lines = [line for path in sorted(service.audit.glob("audit-*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def error(answer: httpx.Response) -> tuple[int, str, str | None]:
    said = answer.json()["error"]
    assert set(said) == {"message", "type", "param", "code"}
    return answer.status_code, said["code"], said["param"]


def test_a_key_is_made_listed_and_ended_and_each_change_is_on_record(
    http: httpx.Client, service: AdministeredService
) -> None:
    made = http.post("/api/v1/keys", json={"name": "search", "team": "shop", "tier": "pro", "models": ["talker"]})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    record, text = made.json()["record"], made.json()["key"]
    assert record | {"created": ""} == {
        "id": record["id"], "name": "search", "team": "shop", "tier": "pro", "models": ["talker"], "created": "",
        "revoked": False,
    }  # fmt: skip
    listed = http.get("/api/v1/keys", params={"team": "shop"})
    assert record in listed.json()["keys"]
    assert text not in listed.text
    for _ in range(2):
        ended = http.delete(f"/api/v1/keys/{record['id']}")
        assert (ended.status_code, ended.json()) == (200, record | {"revoked": True})
    done = [one for one in audited(service) if one.get("subject") == record["id"]]
    assert [(one["action"], one["team"], one["actor"]) for one in done] == [
        ("key_created", "shop", "admin-api@127.0.0.1"),
        *[("key_revoked", "shop", "admin-api@127.0.0.1")] * 2,
    ]
    assert text not in json.dumps(done)


def test_keys_come_in_pages(http: httpx.Client) -> None:
    made = [http.post("/api/v1/keys", json={"name": f"k{n}", "team": "pages"}).json()["record"] for n in range(5)]
    seen: list[str] = []
    more = True
    while more:
        after = {"after": seen[-1]} if seen else {}
        page = http.get("/api/v1/keys", params={"team": "pages", "limit": 2, **after}).json()
        assert len(page["keys"]) <= 2
        seen += [key["id"] for key in page["keys"]]
        more = page["more"]
    assert sorted(seen) == sorted(key["id"] for key in made)


def test_limits_and_budgets_are_read_without_being_used(http: httpx.Client) -> None:
    for _ in range(3):
        told = http.get("/api/v1/principals/robot/limits", params={"model": "talker"}).json()
    assert (told["team"], told["tier"], told["mode"]) == ("robots", "pro", "enforce")
    limits = {one["name"]: one for one in told["limits"]}
    assert limits["tier:requests_per_minute"]["used"] == 0
    budget = limits["budget:team-money"]
    assert (budget["unit"], budget["amount"], budget["remaining"]) == ("money_nano", 2_500_000_000, 2_500_000_000)
    assert budget["resets_in_s"] > 0
    assert error(http.get("/api/v1/principals/nobody/limits")) == (404, "no_such_principal", "principal")


def test_usage_decisions_and_spend_come_from_the_same_events(http: httpx.Client, service: AdministeredService) -> None:
    now_s = float(int(time.time()))  # by Redis's clock they are recorded, and looked for
    writer = SpoolWriter(service.spool, "test", 1 << 30)
    events: list[dict[str, Any]] = [
        {
            "id": f"r{n}", "time": now_s + n, "team": f"team-{n % 2}", "principal": "robot",
            "model": "talker", "prompt_tokens": 10, "completion_tokens": 5, "price_nano": 1_000_000, "currency": "EUR",
            "status": 200, "termination": "COMPLETED", "duration_ms": 7.5,
        }
        for n in range(6)
    ]  # fmt: skip
    for event in events:
        assert writer.append(json.dumps(event).encode() + b"\n")
    writer.close()

    def live() -> dict[str, Any]:
        shown: dict[str, Any] = http.get("/api/v1/live").json()
        return shown

    assert wait_until(lambda: len(live()["decisions"]) == 6, 10.0)
    shown = live()
    assert shown["recording"] is True
    assert {(one["team"], one["requests"], one["tokens"], one["cost"]["EUR"]) for one in shown["spend"]} == {
        ("team-0", 3, 45, 0.003),
        ("team-1", 3, 45, 0.003),
    }
    assert shown["decisions"][0]["time"] == now_s + 5
    usage = http.get("/api/v1/usage", params={"by": "team", "since": now_s + 1, "until": now_s + 5}).json()
    assert {one["group"]["team"]: one["requests"] for one in usage["groups"]} == {"team-0": 2, "team-1": 2}
    assert usage["total"]["cost_nano"] == {"EUR": 4_000_000}


def test_a_purge_has_to_say_what_it_means_and_is_on_record(http: httpx.Client, service: AdministeredService) -> None:
    assert error(http.post("/api/v1/cache/purge", json={})) == (409, "nothing_named", "all")
    assert http.post("/api/v1/cache/purge", json={"tenant": "shop"}).json() == {"forgotten": 0}
    assert http.post("/api/v1/cache/purge", json={"all": True}).json() == {"forgotten": 0}
    purged = [one["subject"] for one in audited(service) if one["action"] == "cache_purged"]
    assert purged[-2:] == ["tenant=shop", "all"]
    assert http.get("/api/v1/cache").json() == {"groups": [], "entries": 0, "bytes": 0, "left_out": 0}


def test_what_runs(http: httpx.Client) -> None:
    told = http.get("/api/v1/process").json()
    assert (told["workers"], told["ready"], told["draining"]) == (1, True, False)
    assert told["config_version"] == http.get("/config").json()["config_version"]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/api/v1/keys", {"name": ""}, (400, "invalid_request", "name")),
        ("POST", "/api/v1/keys", {"name": "a\n"}, (400, "invalid_request", "name")),
        ("POST", "/api/v1/keys", {"name": "a", "team": "b\n"}, (400, "invalid_request", "team")),
        ("POST", "/api/v1/keys", {"name": "a", "tier": "gold"}, (400, "invalid_request", "tier")),
        ("POST", "/api/v1/keys", {"name": "a", "owner": "b"}, (400, "invalid_request", None)),
        ("POST", "/api/v1/keys", {"name": "a", "models": []}, (400, "invalid_request", "models")),
        ("POST", "/api/v1/keys", {"name": "a", "models": ["x"]}, (409, "model_not_configured", "models")),
        ("POST", "/api/v1/keys", [], (400, "invalid_request", None)),
        ("POST", "/api/v1/keys", {"name": "a" * 20_000}, (413, "request_too_large", None)),
        ("POST", "/api/v1/cache/purge", {"tenant": None}, (400, "invalid_request", "tenant")),
        ("DELETE", "/api/v1/keys/key-000000000000", None, (404, "no_such_key", "id")),
        ("DELETE", "/api/v1/keys/..%2f", None, (400, "invalid_request", "id")),
        ("GET", "/api/v1/keys?limit=0", None, (400, "invalid_request", "limit")),
        ("GET", "/api/v1/keys?limit=2&limit=3", None, (400, "invalid_request", "limit")),
        ("GET", "/api/v1/usage?by=prompt", None, (400, "invalid_request", "by")),
        ("GET", f"/api/v1/keys?team={'a' * 5000}", None, (400, "invalid_request", None)),
        ("GET", "/api/v1/keys", {}, (400, "invalid_request", None)),
        ("PUT", "/api/v1/keys", None, (405, "method_not_allowed", None)),
        ("GET", "/api/v1/nothing", None, (404, "not_found", None)),
    ],
)
def test_what_is_not_as_documented_is_refused_in_one_shape(
    http: httpx.Client, method: str, path: str, body: Any, expected: tuple[int, str, str | None]
) -> None:
    content = None if body is None else json.dumps(body)
    answer = http.request(method, path, content=content, headers={"content-type": "application/json"})
    assert error(answer) == expected


def test_a_form_is_no_json(http: httpx.Client) -> None:
    """What another site's page could send without asking first."""
    answer = http.post("/api/v1/keys", content='{"name": "a"}', headers={"content-type": "text/plain"})
    assert error(answer) == (415, "unsupported_media_type", None)


def test_without_its_audit_log_nothing_is_changed(http: httpx.Client, service: AdministeredService) -> None:
    before = http.get("/api/v1/keys").json()
    lock = service.audit / "lock"
    lock.unlink()
    lock.mkdir()
    try:
        assert error(http.post("/api/v1/keys", json={"name": "a"})) == (503, "audit_unavailable", None)
    finally:
        lock.rmdir()
    assert http.get("/api/v1/keys").json() == before


def test_elsewhere_without_a_token_only_monitoring_is_answered(own_redis: RedisServer, tmp_path: pathlib.Path) -> None:
    with administered(tmp_path, own_redis.url, "anywhere") as running, running.client() as http:
        assert [http.get(path).status_code for path in ("/metrics", "/healthz", "/readyz")] == [200, 200, 200]
        for path in ("/", "/config", "/api/v1/keys", "/api/v1/live", "/openapi.json"):
            assert error(http.get(path)) == (403, "admin_token_required", None)


def test_a_token_is_asked_for_redis_may_be_lost_and_a_drain_ends_it(
    own_redis: RedisServer, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with administered(tmp_path, own_redis.url, f"admin_token_file: {tmp_path}/token #anywhere") as running:
        with running.client() as stranger, running.client("not-" + TOKEN) as guesser:
            for http in (stranger, guesser):
                answer = http.post("/api/v1/process/drain", json={})
                assert error(answer) == (401, "invalid_admin_token", None)
                assert answer.headers["www-authenticate"] == "Bearer"
            assert stranger.get("/").status_code == 200
            assert stranger.get("/healthz").status_code == 200
        with running.client(TOKEN) as http:
            assert http.get("/api/v1/keys").json() == {"keys": [], "more": False}
            own_redis.stop()
            lost = http.get("/api/v1/keys")
            assert error(lost) == (503, "store_unavailable", None)
            assert lost.headers["retry-after"] == "1"
            assert http.get("/api/v1/live").status_code == 200
            assert http.post("/api/v1/process/drain", json={}).status_code == 202
        assert wait_until(lambda: not running.process.running, 20.0)
        assert [one["action"] for one in audited(running)][-1] == "drained"
