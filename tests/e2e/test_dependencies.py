"""Redis down, hung or gone: who is known goes on, who is not is told to come again, and all recovers by itself."""

import asyncio
import contextlib
import pathlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from extproc.config.tier import Tier
from extproc.stores.keys import KeyHasher, KeyStore
from tests.helpers.accounting import Books
from tests.helpers.errors import assert_openai_error
from tests.helpers.processes import wait_until
from tests.helpers.redis import RedisServer
from tests.helpers.scripted_upstream import ScriptedUpstream
from tests.helpers.services import KEY, SECRET, ServedGateway, Upstreams, served

BODY = {"model": "openai", "messages": [{"role": "user", "content": "Hello!"}]}
UNAVAILABLE = ("REJECTED", "identify_unavailable", 503)
BOUND_S = 3.0


@dataclass
class World:
    gateway: ServedGateway
    upstream: ScriptedUpstream
    directory: pathlib.Path

    @property
    def books(self) -> Books:
        return self.gateway.books

    def ask(self, key: str) -> httpx.Response:
        with self.gateway.client(key) as client:
            return client.post("/v1/chat/completions", json=BODY)

    def is_served(self, key: str) -> bool:
        return self.ask(key).status_code == 200

    def gauge(self) -> float:
        return self.books.metric("extproc_degraded", policy="identify")

    def start_redis(self) -> RedisServer:
        """Where the service looks for it."""
        return RedisServer(self.directory)


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    """A gateway without a Redis."""
    with (
        contextlib.closing(ScriptedUpstream()) as upstream,
        served(tmp_path, Upstreams(openai=upstream.port)) as gateway,
    ):
        yield World(gateway, upstream, tmp_path)


def new_key(server: RedisServer) -> str:
    async def create() -> str:
        store = KeyStore(server.url, KeyHasher(SECRET.encode()), 5.0)
        try:
            created = await store.create(name="x", team="tests", tier=Tier.ENTERPRISE, models=("*",))
        finally:
            await store.close()
        return created.text

    return asyncio.run(create())


def assert_come_again(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert_openai_error(answer.headers, answer.json(), 503, "overloaded")
    assert answer.headers["x-extproc-degraded"] == "identify"


def test_redis_down_at_the_start(world: World) -> None:
    with world.books.accounted(2) as entries:
        assert world.is_served(KEY)  # in the configuration
        assert_come_again(world.ask("sk-xp-in-redis"))
    assert entries.outcomes() == [("COMPLETED", "", 200), UNAVAILABLE]
    assert len(world.upstream.seen) == 1
    with contextlib.closing(world.start_redis()) as server:
        key = new_key(server)
        assert wait_until(lambda: world.is_served(key))
        with world.books.accounted(2) as entries:
            assert "x-extproc-degraded" not in world.ask(key).headers
            assert world.ask("sk-xp-in-redis").status_code == 401
        assert entries.outcomes() == [("COMPLETED", "", 200), ("REJECTED", "unauthenticated", 401)]


def test_redis_stopped_while_running(world: World) -> None:
    with contextlib.closing(world.start_redis()) as server:
        known, unused = new_key(server), new_key(server)
        assert wait_until(lambda: world.is_served(known))
        server.stop()
        with world.books.accounted(4) as entries:
            assert_come_again(world.ask(unused))
            answers = [world.ask(known), world.ask(known), world.ask(KEY)]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert {answer.headers["x-extproc-degraded"] for answer in answers} == {"identify"}
        assert world.gauge() == 1
        assert entries.outcomes() == [UNAVAILABLE, *[("COMPLETED", "", 200)] * 3]
        server.start()
        assert wait_until(lambda: world.is_served(unused))
        assert wait_until(lambda: "x-extproc-degraded" not in world.ask(known).headers)
        assert world.is_served(KEY)
        assert world.gauge() == 0


def test_the_word_of_a_lost_redis_is_taken_back_for_those_who_never_needed_it(world: World) -> None:
    assert_come_again(world.ask("sk-xp-in-redis"))
    assert "x-extproc-degraded" in world.ask(KEY).headers
    with contextlib.closing(world.start_redis()):
        assert wait_until(lambda: "x-extproc-degraded" not in world.ask(KEY).headers)


def test_a_redis_that_hangs_holds_nobody_for_long(world: World) -> None:
    with contextlib.closing(world.start_redis()) as server:
        known, unused = new_key(server), new_key(server)
        assert wait_until(lambda: world.is_served(known))
        server.pause()
        with world.books.accounted(3) as entries:
            began_s = time.monotonic()
            assert_come_again(world.ask(unused))
            assert world.ask(known).status_code == 200
            assert world.ask(KEY).status_code == 200
            assert time.monotonic() - began_s < BOUND_S
        assert entries.outcomes() == [UNAVAILABLE, *[("COMPLETED", "", 200)] * 2]
        server.resume()
        assert wait_until(lambda: world.is_served(unused))
        assert wait_until(lambda: "x-extproc-degraded" not in world.ask(KEY).headers)


def test_many_strangers_at_once_do_not_hold_each_other_up(world: World) -> None:
    """Keys that nobody knows, while the store hangs: each is refused in its own time, not in a queue."""

    async def ask_all() -> list[int]:
        url = f"http://127.0.0.1:{world.gateway.port}/v1/models"
        async with httpx.AsyncClient(timeout=20) as client:
            headers = ({"authorization": f"Bearer sk-xp-{number}"} for number in range(50))
            answers = await asyncio.gather(*(client.get(url, headers=one) for one in headers))
        return [answer.status_code for answer in answers]

    with contextlib.closing(world.start_redis()) as server:
        assert wait_until(lambda: world.ask("sk-xp-in-redis").status_code == 401)
        server.pause()
        began_s = time.monotonic()
        with world.books.accounted(50):
            assert asyncio.run(ask_all()) == [503] * 50
        assert time.monotonic() - began_s < BOUND_S
        server.resume()
        assert wait_until(lambda: world.ask("sk-xp-7").status_code == 401)


def test_a_redis_that_has_lost_its_keys_is_believed(world: World) -> None:
    """Revoked by whoever wiped it: a cached key is asked about again once the connection is back."""
    with contextlib.closing(world.start_redis()) as server:
        key = new_key(server)
        assert wait_until(lambda: world.is_served(key))
        server.stop()
        for file in (world.directory / "appendonlydir").iterdir():
            file.unlink()
        server.start()
        assert wait_until(lambda: world.ask(key).status_code == 401)
