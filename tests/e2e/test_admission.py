"""Admission through real Envoy, workers and Redis: who goes in, who waits, who is sent away, and what is left of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

import httpx
import psutil
import pytest

from extproc.admission import Use
from extproc.policies.admit_settings import Settings
from extproc.stores.lines import RedisLines
from tests.helpers.gate import Gate
from tests.helpers.limited import Answer, Limited, ask
from tests.helpers.processes import wait_until
from tests.helpers.usage import Scrape, usage_of

KEYS = {"boss": "enterprise", "other": "enterprise", "team": "pro", "free": "free"}
LIMITS = """
keys:
  boss: {tokens_per_minute: 1000000, algorithm: sliding_window}
"""
ADMIT = """
admit:
  pools: {up: {requests: 4, queue_length: 12}}
  lease_s: 3
  classes:
    P2: {share: 0.75, wait_s: 30}
    P3: {share: 0.5, wait_s: 20}
"""
T = TypeVar("T")
NOBODY = (0, 0, 0, 0)
pytestmark = pytest.mark.stack


async def until(ask: Callable[[], Awaitable[T]], holds: Callable[[T], bool], timeout_s: float = 15.0) -> None:
    """Ask again and again, until the answer is right."""
    until_s = time.monotonic() + timeout_s
    answer = await ask()
    while not holds(answer) and time.monotonic() < until_s:
        await asyncio.sleep(0.02)
        answer = await ask()
    assert holds(answer), answer


class World:
    """A gateway with lines, and the gate behind it."""

    def __init__(self, limited: Limited, gate: Gate) -> None:
        self.limited, self.gate = limited, gate

    async def use(self) -> Use:
        """What Redis says is in use."""
        store = RedisLines(self.limited.redis.url, 5.0, "")
        settings = self.limited.gateway.load().policies["admit"]
        assert isinstance(settings, Settings)
        line = settings.line("up")
        assert line is not None
        try:
            return (await store.beat(line, (), reap=False)).use
        finally:
            await store.close()

    async def waits(self, *waiting: int) -> None:
        """Until so many of each class wait."""
        await until(self.use, lambda use: use.waiting == waiting)

    async def is_empty(self) -> None:
        """Until nothing is in use."""
        await until(self.use, lambda use: use == Use(NOBODY, NOBODY, NOBODY))


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    found = Gate()
    yield found
    found.close()


@pytest.fixture(scope="module", params=[1, 4], ids=["one-worker", "four-workers"])
def limited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, gate: Gate) -> Iterator[Limited]:
    directory, port = tmp_path_factory.mktemp("admitted"), gate.upstream.port
    running = Limited(directory, KEYS, LIMITS, workers=request.param, policies=ADMIT, upstream=port)
    yield running
    running.close()


@pytest.fixture
async def world(limited: Limited, gate: Gate) -> AsyncIterator[World]:
    gate.shut()
    found = World(limited, gate)
    yield found
    gate.open()
    await found.is_empty()


@pytest.fixture
async def client(limited: Limited) -> AsyncIterator[httpx.AsyncClient]:
    async with limited.client(60.0) as found:
        yield found


def chat(client: httpx.AsyncClient, prompt: str, priority: str = "", key: str = "boss") -> asyncio.Task[Answer]:
    """A chat that is known by its prompt."""
    headers = {"x-extproc-priority": priority} if priority else {}
    return asyncio.create_task(ask(client, key, prompt, headers=headers, max_tokens=100))


async def test_a_flood_of_background_leaves_room_for_real_time(world: World, client: httpx.AsyncClient) -> None:
    gate = world.gate
    flood = [chat(client, f"flood-{number}", "P3") for number in range(14)]
    await world.waits(0, 0, 0, 12)
    assert await asyncio.to_thread(gate.holds, 2)  # their share
    urgent = [chat(client, f"urgent-{number}", "P0") for number in range(2)]
    assert await asyncio.to_thread(gate.holds, 4)  # past twelve that wait
    assert Counter(name.partition("-")[0] for name in gate.at_work) == {"flood": 2, "urgent": 2}
    late = chat(client, "urgent-late", "P0")  # takes the place of one of the flood
    await world.waits(1, 0, 0, 11)
    gate.let_go(next(name for name in gate.at_work if name.startswith("flood")))
    assert await asyncio.to_thread(wait_until, lambda: "urgent-late" in gate.began)
    gate.open()
    answers = await asyncio.gather(*flood, *urgent, late)
    assert Counter(answer.status for answer in answers) == {200: 16, 503: 1}
    assert gate.most == 4
    assert len(gate.began) == 16


async def test_who_waits_longer_than_envoys_message_timeout_is_served(world: World, client: httpx.AsyncClient) -> None:
    running = [chat(client, f"running-{number}") for number in range(4)]
    assert await asyncio.to_thread(world.gate.holds, 4)
    waiting = chat(client, "waiting")
    await world.waits(1, 0, 0, 0)
    await asyncio.sleep(0.5)  # the timeout is 0.2 s by default, in modes that have one
    world.gate.open()
    assert {answer.status for answer in await asyncio.gather(*running, waiting)} == {200}
    event = usage_of(world.limited.gateway.directory / "service.log", (await waiting).headers["x-request-id"])
    assert (event["priority"], event["queue_position"]) == ("P0", 1)
    assert event["queued_ms"] >= 500
    assert event["overhead_ms"] < event["queued_ms"]
    assert (await running[0]).headers["x-extproc-pool"] == "up"


async def test_a_full_line_sends_the_lowest_class_away_and_takes_nothing_for_it(
    world: World, client: httpx.AsyncClient
) -> None:
    used = await world.limited.used("boss", "tier:tokens_per_minute")
    running = [chat(client, f"running-{number}") for number in range(4)]
    assert await asyncio.to_thread(world.gate.holds, 4)
    low = [chat(client, f"low-{number}", "P3") for number in range(12)]
    await world.waits(0, 0, 0, 12)
    refused = await chat(client, "one more", "P3")
    better = chat(client, "better", "P2", "other")
    await world.waits(0, 0, 1, 11)
    done, _ = await asyncio.wait(low, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    (shed,) = (task.result() for task in done)
    for answer in (refused, shed):
        assert (answer.status, answer.code) == (503, "overloaded")
        assert answer.headers["retry-after"] == "20"
    world.gate.open()
    answers = await asyncio.gather(*running, *(task for task in low if task not in done), better)
    assert {answer.status for answer in answers} == {200}
    await world.is_empty()
    log = world.limited.gateway.directory / "service.log"
    events = [usage_of(log, answer.headers["x-request-id"]) for answer in (refused, shed)]
    assert [event["reason"] for event in events] == ["queue_full", "queue_shed"]
    assert {(event["termination"], event["price_nano"], event["priority"]) for event in events} == {
        ("REJECTED", 0, "P3")
    }
    served = [usage_of(log, answer.headers["x-request-id"]) for answer in answers if answer is not better.result()]
    cost = sum(event["prompt_tokens"] + event["completion_tokens"] for event in served)
    assert await world.limited.used("boss", "tier:tokens_per_minute") == used + cost


async def test_a_storm_never_takes_more_than_there_is(world: World, client: httpx.AsyncClient) -> None:
    world.gate.open()
    dice, at_once = random.Random(5), asyncio.Semaphore(20)

    async def one(number: int) -> int:
        async with at_once:
            return (
                await chat(client, f"storm-{number}", f"P{dice.randrange(4)}", dice.choice(("boss", "other")))
            ).status

    found = Counter(await asyncio.gather(*(one(number) for number in range(200))))
    assert found.keys() <= {200, 503}
    assert len(world.gate.began) == found[200] >= 20
    assert 2 <= world.gate.most <= 4


async def test_who_leaves_makes_room(world: World, client: httpx.AsyncClient) -> None:
    running = [chat(client, f"running-{number}") for number in range(4)]
    assert await asyncio.to_thread(world.gate.holds, 4)
    leaving = chat(client, "leaving")
    await world.waits(1, 0, 0, 0)
    staying = chat(client, "staying")
    await world.waits(2, 0, 0, 0)
    leaving.cancel()
    await world.waits(1, 0, 0, 0)
    running[0].cancel()  # at work, it gives its slot back
    assert await asyncio.to_thread(wait_until, lambda: "staying" in world.gate.began)
    world.gate.open()
    assert {answer.status for answer in await asyncio.gather(*running[1:], staying)} == {200}
    assert "leaving" not in world.gate.began
    assert world.gate.most <= 4 + 1  # the upstream may be told of the leaving after the next has come


async def test_nobody_gets_a_better_class_than_their_tier_has(world: World, client: httpx.AsyncClient) -> None:
    world.gate.open()
    asked = [("free", "P0", "P3"), ("free", "", "P3"), ("team", "P0", "P1"), ("team", "p2", "P2"), ("boss", "", "P0")]
    log = world.limited.gateway.directory / "service.log"
    for key, priority, given in asked:
        answer = await chat(client, "Hi", priority, key)
        assert answer.status == 200
        assert usage_of(log, answer.headers["x-request-id"])["priority"] == given
    wrong = await chat(client, "Hi", "highest")
    assert wrong.status == 400
    assert "x-extproc-priority" in wrong.text


async def test_what_a_killed_worker_held_is_free_again(world: World, client: httpx.AsyncClient) -> None:
    limited = world.limited
    lost = [chat(client, f"lost-{number}") for number in range(4)]
    assert await asyncio.to_thread(world.gate.holds, 4)
    waiting = [chat(client, f"waiting-{number}") for number in range(2)]
    await world.waits(2, 0, 0, 0)
    for worker in psutil.Process(limited.gateway.service.pid).children():
        if "extproc.app" in worker.cmdline():
            worker.kill()
    await asyncio.gather(*lost, *waiting, return_exceptions=True)
    assert await asyncio.to_thread(wait_until, limited.gateway.ready)
    world.gate.open()
    await until(lambda: chat(client, "again"), lambda answer: answer.status == 200)
    await world.is_empty()


async def test_redis_goes_and_comes_back(world: World, client: httpx.AsyncClient) -> None:
    limited, gate = world.limited, world.gate
    running = [chat(client, f"running-{number}") for number in range(4)]
    assert await asyncio.to_thread(gate.holds, 4)
    waiting = [chat(client, f"waiting-{number}") for number in range(3)]
    await world.waits(3, 0, 0, 0)

    def is_degraded() -> bool:
        return Scrape(limited.gateway.ports.service_admin).value("extproc_degraded", policy="admit") > 0

    await asyncio.to_thread(limited.redis.stop)
    assert await asyncio.to_thread(wait_until, is_degraded)
    gate.let_go("running-0", "running-1", "running-2", "running-3")
    assert {answer.status for answer in await asyncio.gather(*running)} == {200}
    assert await asyncio.to_thread(wait_until, lambda: bool(gate.at_work))  # the workers' own shares
    await asyncio.to_thread(limited.redis.start)
    assert await asyncio.to_thread(wait_until, lambda: not is_degraded())
    assert await asyncio.to_thread(gate.holds, 3)
    await until(world.use, lambda use: use.requests == (3, 0, 0, 0))
    if limited.gateway.load().service.workers == 1:  # several may have held more than their shares when it was lost
        assert gate.most <= 4
    gate.most = 3
    more = [chat(client, f"more-{number}") for number in range(3)]
    await world.waits(2, 0, 0, 0)
    assert gate.most <= 4
    gate.open()
    assert {answer.status for answer in await asyncio.gather(*waiting, *more)} == {200}
