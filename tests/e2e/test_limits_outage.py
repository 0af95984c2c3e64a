"""Limits while Redis hangs, is stopped or comes back empty, all under load: nothing fails, nobody waits for its return.

How long anything waits at most is proved where time stands still: tests/integration/stores/test_limits_deadline.py.
"""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.helpers.limited import Answer, Limited, ask
from tests.helpers.processes import wait_until
from tests.helpers.usage import Scrape, in_flight, log_lines

KEYS = {"load": "enterprise", "crowd": "enterprise"}
POLICY = """
reservation_ttl_s: 5
limits:
  load: {scope: key, measure: tokens, amount: 100000000, window_s: 3600, algorithm: sliding_window, keys: [load]}
  load-slots: {scope: key, measure: concurrent, amount: 1000, keys: [load]}
  crowd: {scope: key, measure: requests, amount: 40, window_s: 3600, keys: [crowd]}
"""
AWAY_S = 2.0
pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    running = Limited(tmp_path_factory.mktemp("outage"), KEYS, POLICY, workers=2)
    yield running
    running.close()


async def load(limited: Limited, seconds: float, answers: list[Answer]) -> None:
    """Twelve clients that ask again and again."""
    until_s = time.monotonic() + seconds

    async with limited.client() as client:

        async def one() -> None:
            while time.monotonic() < until_s:
                answers.append(await ask(client, "load", "[[tokens=3]][[gap_ms=5]]", stream=True))
                await asyncio.sleep(0.05)

        await asyncio.gather(*(one() for _ in range(12)))


async def under_load(limited: Limited, lose: Callable[[], None], mend: Callable[[], None]) -> list[Answer]:
    """Redis is lost for some of five seconds; waits until it is in use again."""
    answers: list[Answer] = []
    running = asyncio.create_task(load(limited, 5.0, answers))
    await asyncio.sleep(1.0)
    await asyncio.to_thread(lose)
    await asyncio.sleep(AWAY_S)
    assert Scrape(limited.gateway.ports.service_admin).value("extproc_degraded") == 1
    await asyncio.to_thread(mend)
    await running
    assert await asyncio.to_thread(wait_until, lambda: not is_degraded(limited))
    return answers


def is_degraded(limited: Limited) -> bool:
    return Scrape(limited.gateway.ports.service_admin).value("extproc_degraded") > 0


def losses(limited: Limited) -> int:
    lines = log_lines(limited.gateway.directory / "service.log")
    return sum("Redis is lost" in line.get("message", "") for line in lines)


def used(limited: Limited) -> int:
    mine = [event for event in limited.events() if event.get("principal") == "load"]
    return sum(event["prompt_tokens"] + event["completion_tokens"] for event in mine if event["completion_tokens"])


def check(answers: list[Answer]) -> None:
    assert Counter(answer.status for answer in answers) == {200: len(answers)}
    assert max(answer.took_s for answer in answers) < AWAY_S  # nobody waited for it to come back
    degraded = [answer.headers.get("x-extproc-degraded") for answer in answers]
    assert set(degraded) == {None, "limit"}
    assert degraded[0] is None
    assert degraded[-1] is None


async def over(limited: Limited) -> None:
    """Wait until all that was asked is in the books."""
    assert await asyncio.to_thread(wait_until, lambda: in_flight(limited.gateway.ports.service_admin) == 0)


async def settled(limited: Limited) -> None:
    await over(limited)
    deadline_s = time.monotonic() + 10
    now = await limited.used("load", "load")
    while now != used(limited) and time.monotonic() < deadline_s:
        await asyncio.sleep(0.1)
        now = await limited.used("load", "load")
    assert now == used(limited)
    assert await limited.used("load", "load-slots") == 0


@pytest.mark.parametrize("how", ["hung", "stopped"])
async def test_redis_lost_and_back(limited: Limited, how: str) -> None:
    before = losses(limited)
    redis = limited.redis
    lose, mend = (redis.pause, redis.resume) if how == "hung" else (redis.stop, redis.start)
    check(await under_load(limited, lose, mend))
    assert losses(limited) - before == 2  # one line of each worker
    await settled(limited)


async def test_redis_comes_back_empty(limited: Limited) -> None:
    data = limited.redis.socket.parent

    def empty() -> None:
        shutil.rmtree(data / "appendonlydir")
        limited.redis.start()

    await over(limited)
    before = used(limited)
    check(await under_load(limited, limited.redis.stop, empty))
    await over(limited)
    counted = await limited.used("load", "load")
    assert 0 < counted <= used(limited) - before
    assert await limited.used("load", "load-slots") == 0


async def test_replicas_share_a_limit_while_redis_is_lost(limited: Limited) -> None:
    limited.redis.stop()
    try:
        async with limited.client() as client:
            assert (await ask(client, "load")).status == 200
            answers = await asyncio.gather(*(ask(client, "crowd") for _ in range(120)))
    finally:
        limited.redis.start()
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {200, 429}
    assert 20 <= statuses[200] <= 40
    assert await asyncio.to_thread(wait_until, lambda: not is_degraded(limited))
    await asyncio.sleep(1.0)
    assert await limited.used("crowd", "crowd") >= statuses[200] - 1  # it refills meanwhile


async def test_closed_refuses_while_redis_is_lost(tmp_path: pathlib.Path) -> None:
    closed = Limited(tmp_path / "closed", KEYS, POLICY + "redis_lost: closed\n")
    try:
        async with closed.client() as client:
            assert (await ask(client, "load")).status == 200
            closed.redis.pause()
            refused = [await ask(client, "load") for _ in range(3)]
            closed.redis.resume()
            assert {(answer.status, answer.code) for answer in refused} == {(503, "overloaded")}
            assert {answer.headers["x-extproc-degraded"] for answer in refused} == {"limit"}
            assert await asyncio.to_thread(wait_until, lambda: not is_degraded(closed))
            assert (await ask(client, "load")).status == 200
    finally:
        closed.close()
