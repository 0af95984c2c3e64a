"""Models loaded on demand, through real Envoys, workers, Redis and Triton: two replicas before one server that has room
for one model.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import pytest
import yaml

from extproc.cli.main import main
from extproc.stores.model_states import ModelRow, ModelStates
from tests.helpers.errors import assert_openai_error
from tests.helpers.meshed import EmptyTriton
from tests.helpers.processes import wait_until
from tests.helpers.redis import RedisServer
from tests.helpers.services import KEY, ServedGateway, Upstreams, served

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "model-mesh.md").read_text()
AUDIT = 'audit: {dir: "DIRECTORY/audit", secret: an-audit-secret-of-enough-letters}'
PATIENT = {"retry_load_s": 2, "turn_s": 120, "load_timeout_s": 60}
HASTY = {**PATIENT, "wait_s": 1, "queue_length": 2}
LONG_S = 60.0


@dataclass
class World:
    """Two replicas before one Triton and one Redis. The first waits as long as it takes, the second hardly at all."""

    triton: EmptyTriton
    redis: RedisServer
    patient: ServedGateway
    hasty: ServedGateway
    threads: ThreadPoolExecutor

    def ask(self, model: str, text: str = "Hi", *, by: ServedGateway | None = None, **more: object) -> httpx.Response:
        headers = {"authorization": f"Bearer {KEY}"}
        url = f"http://127.0.0.1:{(by or self.patient).port}/v1/chat/completions"
        return httpx.post(url, json=body(model, text, **more), headers=headers, timeout=150)

    def asks(self, model: str, text: str = "Hi", **more: object) -> Future[httpx.Response]:
        """The same, meanwhile."""
        return self.threads.submit(self.ask, model, text, **more)

    @contextmanager
    def in_use(self, model: str) -> Iterator[None]:
        """Somebody reads a long stream of this model's, who leaves at the end of the block."""
        asked = body(model, "[[demo:tokens=4000]][[demo:tpot_ms=50]] go on", stream=True, max_tokens=4000)
        with (
            self.patient.client() as client,
            client.stream("POST", "/v1/chat/completions", json=asked, timeout=150) as answer,
        ):
            lines = answer.iter_lines()  # which closes the stream when it is dropped
            assert next(lines).startswith("data: ")
            yield

    def counted(self) -> dict[str, float]:
        """By metric, of both replicas."""
        names = ("model_requests_total", "model_wait_seconds_count", "model_load_seconds_count")
        books = (self.patient.books, self.hasty.books)
        return {f"extproc_{name}": sum(one.metric(f"extproc_{name}") for one in books) for name in names}

    def row(self, model: str) -> ModelRow:
        """What Redis says of a model."""

        async def look() -> ModelRow:
            states = ModelStates(self.redis.url, 5.0)
            try:
                return (await states.survey("gpu", [model])).models[model]
            finally:
                await states.close()

        return asyncio.run(look())

    def until(self, model: str, holds: Callable[[ModelRow], bool]) -> None:
        assert wait_until(lambda: holds(self.row(model)), LONG_S), self.row(model)


def block(language: str) -> str:
    """The page's first block in this language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


SHOWN = yaml.safe_load(block("yaml"))
MODELS = (*SHOWN["pools"], "broken")


def pools(triton: EmptyTriton) -> dict[str, str]:
    """The page's, and one that is broken; for `Upstreams.more`."""
    shown = json.dumps({**SHOWN["pools"]["small_llm"], "health": {"interval_s": 0.2}})
    shown = shown.replace("127.0.0.1:8000", f"127.0.0.1:{triton.ports.http}")
    return {model: shown.replace('"model": "small_llm"', f'"model": "{model}"') for model in MODELS}


def body(model: str, text: str, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4, **more}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("mesh")
    with ExitStack() as undo:
        triton = EmptyTriton(directory / "triton", *MODELS)
        undo.callback(triton.close)
        redis = RedisServer(directory)
        undo.callback(redis.close)
        upstreams = Upstreams(more=pools(triton))
        gateways = []
        for name, mesh, workers in (("patient", PATIENT, 2), ("hasty", HASTY, 1)):
            (directory / name).mkdir()
            (directory / name / "redis.sock").symlink_to(redis.socket)
            meshes = {"gpu": {**SHOWN["model_meshes"]["gpu"], **mesh}}
            policies = f"model_meshes: {json.dumps(meshes)}\n" + AUDIT.replace("DIRECTORY", str(directory / name))
            gateways.append(undo.enter_context(served(directory / name, upstreams, workers, policies)))
        yield World(triton, redis, *gateways, undo.enter_context(ThreadPoolExecutor(24)))


@pytest.fixture
def world(opened: World) -> World:
    """With nothing loaded, and nobody who believes that something is."""
    opened.triton.empty()
    for model in MODELS:
        opened.until(model, lambda row: row.state in ("", "failed") and not row.waiting and not row.in_use)
    return opened


def test_of_many_first_requests_one_loads_the_model_and_all_are_answered(world: World) -> None:
    assert world.triton.loaded() == set()
    loads, counted = world.triton.loads("small_llm"), world.counted()
    with world.patient.books.accounted(21):
        asked = [world.asks("small_llm", f"Hi {number}") for number in range(20)]
        assert {one.result().status_code for one in asked} == {200}
        assert world.ask("small_llm").status_code == 200
    assert world.triton.loaded() == {"small_llm"}
    assert world.triton.loads("small_llm") == loads + 1
    more = {name: after - counted[name] for name, after in world.counted().items()}
    assert more["extproc_model_requests_total"] == 21
    assert more["extproc_model_wait_seconds_count"] >= 1
    assert more["extproc_model_load_seconds_count"] == 1


def test_the_second_model_takes_the_place_of_the_first_but_not_while_that_is_in_use(world: World) -> None:
    with world.in_use("small_llm"):
        second = world.asks("large_llm")
        world.until("large_llm", lambda row: row.waiting == 1)
        until_s = time.monotonic() + 1.5  # the loader looks every quarter of a second
        while time.monotonic() < until_s:
            loaded = world.triton.loaded()
            assert world.row("small_llm").in_use == 1
            assert loaded == {"small_llm"}, "it was unloaded under a request"
    assert second.result().status_code == 200
    assert world.triton.loaded() == {"large_llm"}
    assert world.ask("small_llm", "again").status_code == 200
    assert world.triton.loaded() == {"small_llm"}


def test_who_would_wait_too_long_or_with_too_many_is_told_when_to_come_again(world: World) -> None:
    with world.in_use("small_llm"), world.hasty.books.accounted(2) as entries:
        waiting = [world.asks("large_llm", f"Hi {number}") for number in range(2)]
        world.until("large_llm", lambda row: row.waiting == 2)
        answers = [world.ask(model, by=world.hasty) for model in ("large_llm", "broken")]
    for answer in answers:
        assert_openai_error(answer.headers, answer.json(), 503, "overloaded")
        assert answer.headers["retry-after"] == "1"
    assert [event["reason"] for event in entries.events] == ["model_full", "model_too_long"]
    assert world.row("broken").waiting == 0
    assert {one.result().status_code for one in waiting} == {200}


def test_a_model_that_cannot_be_loaded_is_a_clear_error_until_it_can(world: World) -> None:
    world.triton.loading("broken", "broken")
    with world.patient.books.accounted(2) as entries:
        answers = [world.ask("broken"), world.ask("broken")]
    for answer in answers:
        assert_openai_error(answer.headers, answer.json(), 503, "overloaded")
        assert "could not be loaded" in answer.json()["error"]["message"]
        assert "weights" not in answer.text
        assert 1 <= int(answer.headers["retry-after"]) <= 2
    assert {event["reason"] for event in entries.events} == {"model_failed"}
    assert "the weights are not there" in world.row("broken").error
    world.triton.loading("broken", "0")
    assert wait_until(lambda: world.ask("broken").status_code == 200, LONG_S)


def test_a_server_that_comes_back_empty_loads_again_what_is_asked_for(world: World) -> None:
    assert world.ask("small_llm").status_code == 200
    world.triton.stop()
    world.triton.start()
    world.until("small_llm", lambda row: row.state == "")
    assert world.triton.loaded() == set()
    assert world.ask("small_llm", "after it").status_code == 200


def test_without_redis_what_is_loaded_is_served_and_nothing_else(world: World) -> None:
    assert world.ask("small_llm").status_code == 200
    world.redis.stop()
    served = world.ask("small_llm", "without Redis")
    assert served.status_code == 200
    assert "load_model" in served.headers["x-extproc-degraded"]
    refused = world.ask("large_llm")
    assert_openai_error(refused.headers, refused.json(), 503, "overloaded")
    assert world.triton.loaded() == {"small_llm"}
    world.redis.start()
    assert wait_until(lambda: world.ask("large_llm", "with Redis").status_code == 200, LONG_S)
    assert wait_until(lambda: "x-extproc-degraded" not in world.ask("large_llm", "and again").headers, LONG_S)


def test_the_page_and_the_operators_ways(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = f"http://127.0.0.1:{world.patient.port}/v1"
    monkeypatch.setenv("KEY", KEY)
    exec(compile(block("python").replace("http://127.0.0.1:10000/v1", base), "model-mesh.md", "exec"), {})
    assert capsys.readouterr().out == block("text")
    world.until("small_llm", lambda row: not row.in_use)
    shown = re.findall(r"^\$ extproc (.*)\n((?:[^$].*\n)+)", block("console"), re.MULTILINE)
    assert len(shown) == 3
    for words, output in shown:
        capsys.readouterr()
        assert main([*words.split(), "--config", str(world.patient.directory / "gateway.yaml")]) == 0
        said = [line for line in capsys.readouterr().out.splitlines() if "broken" not in line]
        assert _timeless(said) == _timeless(output.splitlines())
    audited = "".join(path.read_text() for path in (world.patient.directory / "audit").glob("audit-*.jsonl"))
    actions = [(one["action"], one.get("subject")) for one in map(json.loads, audited.splitlines())]
    assert [one for one in actions if one[0].startswith("model_")] == [
        ("model_loaded", "gpu/large_llm"),
        ("model_unloaded", "gpu/large_llm"),
    ]
    api = f"http://{world.patient.config.service.admin}/api/v1/models"
    listed = httpx.get(api, timeout=30).json()["models"]
    assert {one["model"]: one["state"] for one in listed if one["model"] != "broken"} == {
        "small_llm": "absent",
        "large_llm": "absent",
    }
    loaded = httpx.post(f"{api}/load", json={"model": "small_llm", "mesh": "gpu"}, timeout=40)
    assert (loaded.status_code, loaded.json()["state"]) == (200, "loaded"), loaded.text
    unknown = httpx.post(f"{api}/unload", json={"model": "nobody"}, timeout=30)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "no_such_model")


def _timeless(table: list[str]) -> list[list[str]]:
    """Its words, without what a load took; the columns are as wide as what is in them."""
    return [re.sub(r"\d+\.\d", "-", line).split() for line in table]
