"""Experiments through Envoy: the split, who keeps his arm, what moves when weights change, and what comes of it all."""

import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.helpers.processes import wait_until
from tests.helpers.redis import RedisServer
from tests.helpers.scripted_upstream import ScriptedUpstream, answers, chat, whole
from tests.helpers.services import KEY, NARROW_KEY, ServedGateway, Upstreams, served
from tests.helpers.usage import Scrape, log_lines, usage_of

SECTIONS = """
experiments:
  split:
    control: old
    sticky: user
    arms: {old: {pool: openai, weight: 90}, new: {pool: pair, weight: 10}}
    testers: {header: x-try-arm, principals: [every]}
  mirrored:
    control: one
    arms: {one: {pool: pair}, two: {pool: pair}}
    mirror: {pool: patient}
  fragile:
    control: steady
    sticky: request
    arms: {steady: {pool: openai}, broken: {pool: nobody}}
    guardrail_interval_s: 0.2
    guardrails: [{metric: error_rate, worse_by: 0.05, min_requests: 10}]
policies:
  limit: {mode: "off"}
  route:
    rules:
      - {name: ab, when: {models: [openai], headers: {x-test: split}}, to: {experiment: split}}
      - {name: guarded, when: {models: [openai], headers: {x-test: fragile}}, to: {experiment: fragile}}
      - {name: mirrored, when: {models: [openai], headers: {x-test: mirrored}}, to: {experiment: mirrored}}
      - {name: tool-users, when: {models: [openai], tools: true}, to: {pool: pair}}
      - {name: long, when: {models: [openai], prompt_tokens: {min: 300}}, to: {model: patient}}
audit: {dir: audit, secret: an-audit-secret-of-a-test}
"""
LISTEN_S = 3.0
Z_99 = 2.576


@dataclass
class World:
    gateway: ServedGateway
    upstreams: Sequence[ScriptedUpstream]
    http: httpx.Client
    config: pathlib.Path

    def ask(self, user: str = "u", key: str = KEY, text: str = "Hello!", **headers: str) -> httpx.Response:
        body = {"model": "openai", "user": user, "messages": [{"role": "user", "content": text}]}
        named = {"authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post("/v1/chat/completions", json=body, headers=named)

    def arm(self, user: str, **headers: str) -> str:
        answer = self.ask(user, **{"x_test": "split", **headers})
        assert answer.status_code == 200, answer.text
        return answer.headers["x-extproc-arm"].removeprefix("split/")

    def arms(self, users: Sequence[str]) -> dict[str, str]:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return dict(zip(users, pool.map(self.arm, users), strict=True))

    def run(self, *arguments: str) -> str:
        command = (sys.executable, "-m", "extproc", *arguments, "--config", str(self.config))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def report(self, experiment: str, *arguments: str) -> dict[str, Any]:
        read = json.loads(self.run("ab", "report", experiment, "--json", *arguments))
        return {arm["name"]: arm for arm in read["arms"]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("experiments")
    (directory / "audit").mkdir()
    with (
        contextlib.closing(RedisServer(directory)),
        contextlib.closing(ScriptedUpstream()) as one,
        contextlib.closing(ScriptedUpstream()) as other,
        contextlib.closing(ScriptedUpstream()) as third,
        served(directory, Upstreams(openai=one.port, pair=(other.port, third.port)), 2, SECTIONS) as gateway,
        gateway.client() as http,
    ):
        yield World(gateway, (one, other, third), http, directory / "gateway.yaml")


USERS = [f"user-{number}" for number in range(2000)]


def test_split_sticky_and_what_a_reload_moves(world: World) -> None:
    before = world.arms(USERS)
    share = Counter(before.values())["new"] / len(USERS)
    assert abs(share - 0.1) <= Z_99 * math.sqrt(0.1 * 0.9 / len(USERS))
    some = [user for user in USERS[:300] if before[user] == "old"][:100] + [u for u in USERS if before[u] == "new"][:50]
    assert world.arms(some) == {user: before[user] for user in some}

    text = world.config.read_text()
    world.config.write_text(text.replace("weight: 90", "weight: 80").replace("weight: 10}", "weight: 20}"))
    version = reload(world)
    after = world.arms(USERS[:600])
    moved = {user for user in after if after[user] != before[user]}
    assert all(before[user] == "old" for user in moved)
    assert abs(len(moved) / len(after) - 0.1) <= Z_99 * math.sqrt(0.1 * 0.9 / len(after))
    world.config.write_text(text)
    assert reload(world) != version
    assert world.arms(some) == {user: before[user] for user in some}


def reload(world: World) -> str:
    """Have both workers take up the file; the version in force."""
    before = len(in_force(world))
    assert world.gateway.service.pid is not None
    os.kill(world.gateway.service.pid, signal.SIGHUP)
    assert wait_until(lambda: len(in_force(world)) >= before + 2)
    return in_force(world)[-1]


def in_force(world: World) -> list[str]:
    lines = log_lines(world.gateway.service.log)
    return [line["version"] for line in lines if line["message"] == "configuration in force"]


def test_what_a_request_says_of_itself(world: World) -> None:
    answer = world.ask("u", x_test="split")
    arm = answer.headers["x-extproc-arm"]
    assert arm in ("split/old", "split/new")
    event = usage_of(world.gateway.service.log, answer.headers["x-request-id"])
    assert (event["arm"], event["rule"]) == (arm, "ab")
    assert re.fullmatch(r"[0-9a-f]{16}", event["subject"])
    log = world.gateway.directory / "access.log"
    assert wait_until(lambda: any((line["arm"], line["rule"]) == (arm, "ab") for line in log_lines(log)))
    metrics = Scrape(world.gateway.config.service.admin.port)
    assert metrics.value("extproc_arm_exchanges_total", experiment="split") > 0
    assert metrics.label_values("extproc_arm_exchanges_total")["arm"] <= {"old", "new", "steady", "broken"}


@pytest.mark.parametrize("arm", ["old", "new"])
def test_a_forged_arm_has_no_effect(world: World, arm: str) -> None:
    """Nor does a tester's header from somebody who is none."""
    users = USERS[:40]
    honest = [world.arm(user) for user in users]
    assert set(honest) == {"old", "new"}
    forged = {"x_extproc_arm": f"split/{arm}", "x_extproc_pool": "pair", "x_extproc_experiment": arm}
    assert [world.arm(user, **forged) for user in users] == honest
    narrow = [world.arm(user, key=NARROW_KEY, x_try_arm=arm) for user in users]
    assert narrow == honest  # of the same team, so the same users
    assert "x-extproc-arm" not in world.ask("u", **forged).headers


def test_a_tester_chooses_and_is_in_no_comparison(world: World) -> None:
    for arm in ("old", "new"):
        answer = world.ask("tester", x_test="split", x_try_arm=arm)
        assert answer.headers["x-extproc-arm"] == f"split/{arm}"
        assert usage_of(world.gateway.service.log, answer.headers["x-request-id"])["subject"] == ""
    assert world.arm("tester", x_try_arm="nonsense") == world.arm("tester")


def test_rules_send_requests_elsewhere(world: World) -> None:
    assert world.ask().headers["x-extproc-pool"] == "openai"
    long = world.ask(text="one more word " * 200)
    assert (long.headers["x-extproc-pool"], long.headers["x-extproc-model"]) == ("patient", "patient")
    event = usage_of(world.gateway.service.log, long.headers["x-request-id"])
    assert (event["model"], event["rule"]) == ("patient", "long")
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = {"model": "openai", "messages": [{"role": "user", "content": "Hi"}], "tools": tools}
    answer = world.http.post("/v1/chat/completions", json=body)
    assert answer.headers["x-extproc-pool"] == "pair"


def test_a_mirror_gets_copies_whose_answers_nobody_sees(world: World) -> None:
    mirror, *arms = world.upstreams
    mirror.script = answers(500, whole("of the mirror"))
    before = [len(one.seen) for one in world.upstreams]
    got = [world.ask(x_test="mirrored", x_extproc_mirror="nobody") for _ in range(5)]
    assert [answer.json()["choices"][0]["message"]["content"] for answer in got] == ["hello there"] * 5
    assert wait_until(lambda: len(mirror.seen) == before[0] + 5)
    mirror.script = chat
    assert sum(len(one.seen) for one in arms) == sum(before[1:]) + 5
    original, copy = next(one for one in arms if one.seen).seen[-1], mirror.seen[-1]
    assert (copy.path, copy.body) == (original.path, original.body)
    assert dict(copy.headers)["host"] == dict(original.headers)["host"]
    assert not [name for name, _ in (*copy.headers, *original.headers) if "mirror" in name or "authorization" in name]
    world.ask(x_extproc_mirror="mirrored")  # forged: nothing is copied
    assert len(mirror.seen) == before[0] + 6  # its own pool's, which is the same server


def test_what_comes_of_copies_is_in_the_report_and_of_nothing_else(world: World) -> None:
    def told() -> dict[str, Any]:
        read = json.loads(world.run("ab", "report", "mirrored", "--json"))["mirror"]
        assert read["pool"] == "patient"
        found: dict[str, Any] = read["copies"]
        return found

    mirror = world.upstreams[0]
    before, seen = told(), len(mirror.seen)
    mirror.script = answers(500, whole("of the mirror"))
    failing = [world.ask(x_test="mirrored").status_code for _ in range(3)]
    assert wait_until(lambda: len(mirror.seen) == seen + 3)
    mirror.script = chat
    good = [world.ask(x_test="mirrored").status_code for _ in range(2)]
    own = {"model": "patient", "messages": [{"role": "user", "content": "not a copy"}]}
    assert world.http.post("/v1/chat/completions", json=own).status_code == 200
    assert {*failing, *good} == {200}
    assert wait_until(lambda: told()["ended"] == before["ended"] + 5)
    assert wait_until(lambda: told()["latency_ms"], 20.0)
    after = told()
    assert (after["sent"] - before["sent"], after["failed"] - before["failed"]) == (5, 3)
    assert 0 <= after["latency_ms"]["p50"] <= after["latency_ms"]["p95"] <= after["latency_ms"]["p99"]
    shown = world.run("ab", "report", "mirrored")
    assert f"mirror patient: {after['ended']} copies since Envoy started" in shown
    assert json.loads(world.run("ab", "report", "split", "--json"))["mirror"] is None


def test_weights_are_set_while_all_runs_and_a_new_description_is_the_newer_word(world: World) -> None:
    assert "new  100" in world.run("ab", "set", "split", "old=0", "new=100")
    users = USERS[:30]
    assert wait_until(lambda: set(world.arms(users).values()) == {"new"}, LISTEN_S)
    assert "ab set" in world.run("ab", "show", "split")
    text = world.config.read_text()
    world.config.write_text(text.replace("weight: 90", "weight: 100").replace("weight: 10}", "weight: 0}"))
    reload(world)
    assert set(world.arms(users).values()) == {"old"}
    world.config.write_text(text)
    reload(world)
    assert set(world.arms(users).values()) == {"new"}  # it is again what `ab set` was said of
    world.run("ab", "clear", "split")
    assert wait_until(lambda: set(world.arms(users).values()) == {"old", "new"}, LISTEN_S)
    audited = "".join(path.read_text() for path in (world.gateway.directory / "audit").iterdir() if path.is_file())
    assert audited.count('"weights_set"') == 2


def test_feedback_is_counted_for_the_arm_of_its_answer(world: World) -> None:
    for number in range(12):
        answer = world.ask(f"critic-{number}", x_test="split", x_try_arm="none")
        liked = answer.headers["x-extproc-arm"] == "split/old"
        said = world.http.post("/v1/feedback", json={"id": answer.json()["id"], "score": 0.75 if liked else 0.25})
        assert said.status_code == 200

    def told() -> bool:
        arms = world.report("split")
        return sum(arm["metrics"]["feedback_score"]["observations"] for arm in arms.values()) == 12

    assert wait_until(told)
    arms = world.report("split")
    assert arms["old"]["metrics"]["feedback_score"]["value"] == pytest.approx(0.75)
    assert arms["old"]["metrics"]["error_rate"]["value"] == 0
    assert arms["old"]["requests"] > arms["new"]["requests"] > 0
    assert arms["old"]["metrics"]["latency_ms_p50"]["value"] > 0
    assert 0 <= arms["new"]["metrics"]["latency_ms_p95"]["p"] <= 1
    assert "taken out" not in world.run("ab", "report", "split")


def test_explain_says_what_happens(world: World) -> None:
    arguments = ("route", "--explain", "--model", "openai", "--principal", "every", "--team", "tests", "--json")
    for user in USERS[:2]:
        named = ("--header", "x-test: split", "--user", user)
        told = json.loads(world.run(*arguments, *named, "--prompt", "Hello!"))
        assert (told["rule"], told["experiment"]["arm"]) == ("ab", world.arm(user))
    told = json.loads(world.run(*arguments, "--prompt", "one more word " * 200))
    assert (told["model"], told["pool"], told["rule"]) == ("patient", "patient", "long")
    assert {step["name"]: step["failed"] for step in told["rules"]} == {
        "ab": "headers", "guarded": "headers", "mirrored": "headers", "tool-users": "tools", "long": "",
    }  # fmt: skip


def test_an_arm_that_breaks_its_guardrail_is_taken_out(world: World) -> None:
    def asked() -> Counter[str]:
        answers_ = [world.ask(x_test="fragile") for _ in range(10)]
        return Counter(f"{answer.headers['x-extproc-arm']} {answer.status_code}" for answer in answers_)

    assert set(asked()) <= {"fragile/steady 200", "fragile/broken 503"}
    assert wait_until(lambda: set(asked()) == {"fragile/steady 200"} and set(asked()) == {"fragile/steady 200"}, 20.0)
    arms = world.report("fragile", "--unit", "request")
    assert arms["broken"]["taken_out"].startswith("error_rate 1.0000, more than 0.05 above")
    assert (arms["broken"]["weight"], arms["steady"]["weight"]) == (0, 1)
    assert arms["broken"]["metrics"]["error_rate"]["p"] < 0.01
    assert "taken out: error_rate" in world.run("ab", "report", "fragile")
    audited = "".join(path.read_text() for path in (world.gateway.directory / "audit").iterdir() if path.is_file())
    assert audited.count('"arm_pulled"') == 1
    world.run("ab", "set", "fragile", "broken=1")  # a person may have another opinion
    assert "taken out" not in world.run("ab", "show", "fragile")
    world.run("ab", "clear", "fragile")
