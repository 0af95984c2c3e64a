"""Models loaded on demand, through real Envoys, workers, Redis and Triton: two gateways of two workers before one server
that has room for one model.
"""

from __future__ import annotations

import asyncio
import pathlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest

from tests.helpers.errors import assert_openai_error
from tests.helpers.meshed import EmptyTriton, pools
from tests.helpers.processes import wait_until
from tests.helpers.redis import RedisServer
from tests.helpers.services import KEY, ServedGateway, Upstreams, served

MODELS = ("first", "second", "slow", "broken")
MESH = """
model_meshes:
  gpu: {max_models: 1, wait_s: 8, queue_length: 24, retry_load_s: 2, turn_s: 60}
"""
pytestmark = pytest.mark.xdist_group("model_mesh")


@dataclass
class World:
    """Two replicas before one Triton and one Redis."""

    triton: EmptyTriton
    redis: RedisServer
    gateways: tuple[ServedGateway, ServedGateway]

    def ask(self, model: str, text: str = "Hi", **more: object) -> httpx.Response:
        with self.gateways[0].client() as client:
            return client.post("/v1/chat/completions", json=body(model, text, **more))


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
        upstreams = Upstreams(more=pools(triton, dict.fromkeys(MODELS, "gpu")))
        gateways = []
        for name in ("a", "b"):
            (directory / name).mkdir()
            (directory / name / "redis.sock").symlink_to(redis.socket)
            gateways.append(undo.enter_context(served(directory / name, upstreams, workers=2, policies=MESH)))
        yield World(triton, redis, (gateways[0], gateways[1]))


@pytest.fixture
def world(opened: World) -> World:
    """With nothing loaded, and nobody who believes that something is."""
    opened.triton.empty()
    for model in MODELS:
        assert wait_until(lambda model=model: not opened.gateways[0].books.metric("extproc_model_loaded", model=model))
    return opened


def test_a_request_waits_for_its_model(world: World) -> None:
    assert world.triton.loaded() == set()
    answer = world.ask("first")
    assert answer.status_code == 200, answer.text
    assert world.triton.loaded() == {"first"}
    loads = world.triton.loads("first")
    assert world.ask("first").status_code == 200
    assert world.triton.loads("first") == loads
