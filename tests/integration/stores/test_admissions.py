"""Admission of several replicas over one Redis: whose turn it is goes from one to the other, and what outages do."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from extproc.admission import Line, Priority, Standing, Ticket, Use
from extproc.clock import Clock
from extproc.errors import DependencyError
from extproc.limits import Lost
from extproc.stores.admissions import SharedAdmissions
from tests.helpers.redis import RedisServer

LINE = Line("pool", (2, 2, 2, 1), (0, 0, 0, 0), (64, 16, 4, 1), 4, 3_000)
WAIT_S = 10.0
RUNNING, WAITING = Standing.RUNNING, Standing.WAITING
_names = (f"ticket-{number}" for number in itertools.count())


class Replica:
    """One, with what it said of itself."""

    def __init__(self, server: RedisServer) -> None:
        self.degraded: list[bool] = []
        self.uses: list[Use] = []
        self.shared = SharedAdmissions(
            server.url, 0.25, Clock(), self.degraded.append, lambda _, use: self.uses.append(use)
        )
        self._listening = asyncio.get_running_loop().create_task(self.shared.listen())

    async def enter(
        self, priority: Priority = Priority.P0, principal: str = "ann", lost: Lost = Lost.SHARE, wait_ms: int = 60_000
    ) -> tuple[str, Standing]:
        name = next(_names)
        entry = await self.shared.enter(LINE, Ticket(name, priority, 10, principal, wait_ms), lost)
        return name, entry.standing

    async def turn(self, name: str, timeout_s: float = WAIT_S) -> Standing:
        return await self.shared.turn(name, timeout_s)

    async def use(self) -> Use:
        await self.shared.beat()
        return self.uses[-1]

    def stop_listening(self) -> None:
        self._listening.cancel()

    async def close(self) -> None:
        self.stop_listening()
        await asyncio.gather(self._listening, return_exceptions=True)
        await self.shared.close()


@pytest.fixture
async def two(own_redis: RedisServer) -> AsyncIterator[tuple[Replica, Replica]]:
    replicas = Replica(own_redis), Replica(own_redis)
    for one in replicas:
        await one.shared.leave((await one.enter())[0])
    await asyncio.sleep(0.1)  # they begin to listen
    yield replicas
    for one in replicas:
        await one.close()


async def fill(*replicas: Replica) -> list[str]:
    entered = [await one.enter() for one in replicas]
    assert {standing for _, standing in entered} == {RUNNING}
    return [name for name, _ in entered]


async def test_a_slot_goes_to_who_waits_elsewhere(two: tuple[Replica, Replica]) -> None:
    here, there = two
    first, second = await fill(here, there)
    waiting, standing = await there.enter()
    assert standing is WAITING
    assert await there.turn(waiting, 0.05) is Standing.LATE
    await here.shared.leave(first)
    assert await there.turn(waiting) is RUNNING
    assert await here.use() == Use((2, 0, 0, 0), (20, 0, 0, 0), (0, 0, 0, 0))
    for name in (second, waiting):
        await there.shared.leave(name)
        await there.shared.leave(name)  # once is enough
    assert await here.use() == Use((0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))


async def test_who_hears_nothing_finds_out(two: tuple[Replica, Replica]) -> None:
    here, there = two
    first, _ = await fill(here, here)
    waiting, _ = await there.enter()
    there.stop_listening()
    await asyncio.sleep(0.05)
    await here.shared.leave(first)
    assert await there.turn(waiting, 0.1) is Standing.LATE
    await there.shared.beat()
    assert await there.turn(waiting, 0.0) is RUNNING


async def test_a_full_line_sheds_elsewhere(two: tuple[Replica, Replica]) -> None:
    here, there = two
    await fill(here, here)
    low = [(await there.enter(Priority.P3))[0] for _ in range(4)]
    assert (await here.enter(Priority.P3, "bob"))[1] is WAITING
    assert await there.turn(low[-1]) is Standing.SHED
    assert (await here.enter(Priority.P3, "ann"))[1] is Standing.SHED


async def test_who_waited_too_long_is_passed_by(two: tuple[Replica, Replica]) -> None:
    here, there = two
    first, _ = await fill(here, here)
    late, _ = await there.enter(wait_ms=20)
    next_one, _ = await there.enter()
    await asyncio.sleep(0.05)
    await here.shared.leave(first)
    assert await there.turn(late) is Standing.LATE
    assert await there.turn(next_one) is RUNNING


async def test_what_a_dead_replica_held_is_given_to_others(two: tuple[Replica, Replica]) -> None:
    here, there = two
    await fill(there, there)
    waiting, _ = await here.enter()
    for _ in range(8):  # `there` shows no life; the lease is 3 s
        await asyncio.sleep(0.5)
        await here.shared.beat()
        if (await here.turn(waiting, 0.0)) is RUNNING:
            break
    assert await here.turn(waiting, 0.0) is RUNNING


async def test_a_lost_redis_leaves_each_its_share(two: tuple[Replica, Replica], own_redis: RedisServer) -> None:
    here, there = two
    first, _ = await fill(here, here)
    waiting, _ = await here.enter()
    elsewhere, standing = await there.enter()
    assert standing is WAITING
    await here.shared.beat()
    await there.shared.beat()
    await here.shared.beat()  # each knows of the other
    own_redis.pause()
    try:
        assert (await here.enter())[1] is WAITING  # it holds more than its share already
        assert await there.turn(elsewhere, 0.0) is Standing.LATE  # it hasn't noticed yet
        assert (await there.enter())[1] is WAITING  # now it has
        assert await there.turn(elsewhere, 0.0) is RUNNING  # one of two
        assert (here.degraded, there.degraded) == ([False, True], [False, True])
        await here.shared.leave(first)
        assert await here.turn(waiting, 0.0) is Standing.LATE
    finally:
        own_redis.resume()
    for one in two:
        await one.shared.beat()
    assert (here.degraded, there.degraded) == ([False, True, False], [False, True, False])
    # Redis gave the free slot to who waited, before it heard of the one let in elsewhere. Nobody follows until all fit.
    assert await here.turn(waiting, 0.0) is RUNNING
    assert (await here.use()).requests == (3, 0, 0, 0)
    assert (await here.use()).waiting == (2, 0, 0, 0)
    await there.shared.leave(elsewhere)
    assert (await here.use()) == Use((2, 0, 0, 0), (20, 0, 0, 0), (2, 0, 0, 0))


async def test_closed_while_redis_is_lost(two: tuple[Replica, Replica], own_redis: RedisServer) -> None:
    here, _ = two
    await fill(here, here)
    waiting, _ = await here.enter(lost=Lost.CLOSED)
    own_redis.pause()
    try:
        with pytest.raises(DependencyError):
            await here.enter(lost=Lost.CLOSED)
        assert await here.turn(waiting, 0.0) is Standing.LOST
    finally:
        own_redis.resume()


async def test_a_redis_that_forgot_everything_is_told_again(
    two: tuple[Replica, Replica], own_redis: RedisServer
) -> None:
    here, there = two
    await fill(here, there)
    waiting, _ = await there.enter()
    own_redis.flush()
    await here.shared.beat()
    await there.shared.beat()
    use = await here.use()
    assert (use.requests, use.waiting) == ((2, 0, 0, 0), (1, 0, 0, 0))
    assert await there.turn(waiting, 0.0) is Standing.LATE


async def test_who_left_before_the_answer_came_holds_nothing(two: tuple[Replica, Replica]) -> None:
    here, _ = two
    task = asyncio.create_task(here.shared.enter(LINE, Ticket("gone", Priority.P0, 10, "ann", 60_000), Lost.SHARE))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await here.shared.leave("gone")
    assert here.shared.idle
    await fill(here, here)
    assert (await here.use()).requests == (2, 0, 0, 0)
