"""Reservations in a real Redis: scripts that come back, cancelled callers, and what is said when Redis is back."""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from extproc.clock import Clock
from extproc.errors import DependencyError
from extproc.limits import MOST_EXACT, Charge, Limit, Lost, Measure, Period, bucket, budget, gauge, key_of, sliding
from extproc.stores.errors import StoreTimeout, StoreUnavailable
from extproc.stores.limiter import SharedLimiter
from extproc.stores.limits import RedisLimits
from tests.helpers.redis import RedisServer

TIMEOUT_S = 0.25  # where Redis is lost
PATIENT_S = 10.0  # where it is there: the machine may be busy
TTL_MS = 30_000
REQUESTS = bucket("requests", Measure.REQUESTS, 100, 3_600_000)
TOKENS = sliding("tokens", Measure.TOKENS, 10_000, 3_600_000)
SLOTS = gauge("slots", 10)


def charges(requests: int = 1, tokens: int = 100) -> list[Charge]:
    given = ((REQUESTS, requests), (TOKENS, tokens), (SLOTS, 1))
    return [Charge(f"{{extproc}}:test:{limit.name}", limit, cost) for limit, cost in given]


@pytest.fixture
async def store(own_redis: RedisServer) -> AsyncIterator[RedisLimits]:
    opened = RedisLimits(own_redis.url, PATIENT_S)
    yield opened
    await opened.close()


@pytest.fixture
async def hasty(own_redis: RedisServer) -> AsyncIterator[RedisLimits]:
    opened = RedisLimits(own_redis.url, TIMEOUT_S)
    yield opened
    await opened.close()


@pytest.fixture
def told() -> list[bool]:
    return []


@pytest.fixture
async def limiter(own_redis: RedisServer, told: list[bool]) -> AsyncIterator[SharedLimiter]:
    made = SharedLimiter(RedisLimits(own_redis.url, TIMEOUT_S), Clock(), told.append)
    await made.beat()
    yield made
    await made.close()


async def left(store: RedisLimits, limit: Limit) -> int:
    nothing = Charge(f"{{extproc}}:test:{limit.name}", limit, 0)
    return (await store.reserve("", [nothing], 0)).states[0].remaining


async def test_a_crowd_in_one_round_trip(store: RedisLimits) -> None:
    slots = charges()[2:]
    admissions = await asyncio.gather(*(store.reserve(f"r{i}", slots, TTL_MS) for i in range(200)))
    assert sum(admission.admitted for admission in admissions) == 10


async def test_scripts_that_redis_forgot_are_given_again(store: RedisLimits, own_redis: RedisServer) -> None:
    client = redis.asyncio.Redis.from_url(own_redis.url)
    assert (await store.reserve("a", charges(), TTL_MS)).admitted
    await client.script_flush()
    assert await store.settle("a", charges(), [1, 40, 0])
    assert await left(store, TOKENS) == 9_960
    await client.aclose()


async def test_the_same_again_is_not_charged_twice(store: RedisLimits) -> None:
    for _ in range(2):
        assert (await store.reserve("a", charges(), TTL_MS)).admitted
    assert await left(store, TOKENS) == 9_900
    assert await store.settle("a", charges(), [1, 100, 0])
    assert not await store.settle("a", charges(), [1, 100, 0])
    assert await left(store, SLOTS) == 10


async def test_what_was_made_elsewhere_is_settled_once_however_often_it_is_said(store: RedisLimits) -> None:
    assert await store.settle("unheard", charges(), [1, 70, 0], unknown=True)
    assert not await store.settle("unheard", charges(), [1, 70, 0], unknown=True)
    assert await left(store, TOKENS) == 9_930


async def test_money_up_to_millions_is_exact(store: RedisLimits) -> None:
    all_of_it = budget("most", MOST_EXACT, Period.TOTAL)
    charge = Charge("{extproc}:test:most", all_of_it, MOST_EXACT - 1)
    assert (await store.reserve("", [charge], 0)).states[0].remaining == 1


async def test_a_hanging_redis_is_not_waited_for(
    hasty: RedisLimits, store: RedisLimits, own_redis: RedisServer
) -> None:
    assert (await store.reserve("a", charges(), TTL_MS)).admitted
    own_redis.pause()
    waiting = [hasty.reserve(f"w{i}", charges(), TTL_MS) for i in range(100)]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreTimeout}
    own_redis.resume()
    assert await store.settle("a", charges(), [1, 0, 0])


async def test_a_busy_loop_is_not_taken_for_a_lost_redis(hasty: RedisLimits) -> None:
    running = asyncio.create_task(hasty.reserve("a", charges(), TTL_MS))
    await asyncio.sleep(0)
    time.sleep(2 * TIMEOUT_S)  # noqa: ASYNC251 (this is what a busy worker looks like)
    assert (await running).admitted


async def test_a_caller_that_leaves_while_reserving_takes_nothing(limiter: SharedLimiter, store: RedisLimits) -> None:
    leaving = asyncio.create_task(limiter.reserve("a", charges(), 30.0, Lost.SHARE))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await asyncio.sleep(0.1)
    await limiter.beat()
    assert (await left(store, TOKENS), await left(store, SLOTS)) == (10_000, 10)
    assert limiter.idle


async def test_the_share_counts_while_redis_is_lost_and_is_told_afterwards(
    limiter: SharedLimiter, store: RedisLimits, own_redis: RedisServer, told: list[bool]
) -> None:
    assert (await limiter.reserve("before", charges(), 30.0, Lost.SHARE)).shared is False
    own_redis.stop()
    admission = await limiter.reserve("meanwhile", charges(), 30.0, Lost.SHARE)
    assert (admission.admitted, admission.shared, limiter.lost) == (True, True, True)
    for number in range(50):
        await limiter.reserve(f"more{number}", charges(tokens=1), 30.0, Lost.SHARE)
        await limiter.settle(f"more{number}", [1, 2, 0])
    with pytest.raises(DependencyError):
        await limiter.reserve("closed", charges(), 30.0, Lost.CLOSED)
    await limiter.attempt(charges()[:1], Lost.SHARE)
    await limiter.settle("before", [1, 60, 0])
    await limiter.settle("meanwhile", [1, 40, 0])
    own_redis.start()
    await limiter.beat()
    assert not limiter.lost
    assert told == [False, True, False]
    assert await left(store, TOKENS) == 10_000 - 60 - 40 - 50 * 2
    assert 100 - await left(store, REQUESTS) in (52, 53)  # it refills meanwhile
    assert await left(store, SLOTS) == 10


async def test_a_stream_that_was_open_is_counted_by_a_redis_that_came_back_empty(
    limiter: SharedLimiter, store: RedisLimits, own_redis: RedisServer
) -> None:
    await limiter.reserve("stream", charges(), 30.0, Lost.SHARE)
    client = redis.asyncio.Redis.from_url(own_redis.url)
    await client.flushall()
    await client.aclose()
    assert await limiter.extend("stream", [0, 50, 0])
    await limiter.settle("stream", [1, 140, 0])
    assert await left(store, TOKENS) == 9_860


async def test_what_a_dead_replica_left_is_given_back_and_a_living_ones_is_kept(
    limiter: SharedLimiter, store: RedisLimits
) -> None:
    assert (await store.reserve("dead", charges(), 100)).admitted
    await limiter.reserve("living", charges(), 0.1, Lost.SHARE)
    for _ in range(4):
        await asyncio.sleep(0.06)
        await limiter.beat()
    assert (await left(store, TOKENS), await left(store, SLOTS)) == (9_900, 9)
    await limiter.settle("living", [1, 5, 0])
    assert await left(store, TOKENS) == 9_995


async def test_a_key_of_another_type_is_the_stores_failure(store: RedisLimits, own_redis: RedisServer) -> None:
    client = redis.asyncio.Redis.from_url(own_redis.url)
    await client.execute_command("HSET", "{extproc}:test:tokens", "a", "b")  # type: ignore[no-untyped-call]
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.reserve("a", charges(), TTL_MS)
    await client.aclose()


async def test_a_share_begins_where_all_replicas_had_come(limiter: SharedLimiter, own_redis: RedisServer) -> None:
    assert (await limiter.reserve("before", charges(tokens=8_000), 30.0, Lost.SHARE)).admitted
    own_redis.stop()
    assert not (await limiter.reserve("too-much", charges(tokens=2_001), 30.0, Lost.SHARE)).admitted
    assert (await limiter.reserve("fits", charges(tokens=2_000), 30.0, Lost.SHARE)).admitted


async def test_one_that_starts_while_redis_is_lost_is_not_alone(own_redis: RedisServer) -> None:
    own_redis.stop()
    limiter = SharedLimiter(RedisLimits(own_redis.url, TIMEOUT_S), Clock(), lambda _: None, replicas=4)
    await limiter.beat()
    assert (await limiter.reserve("its-share", charges(tokens=2_500), 30.0, Lost.SHARE)).admitted
    assert not (await limiter.reserve("more", charges(tokens=1), 30.0, Lost.SHARE)).admitted
    await limiter.close()


async def test_a_settlement_that_is_given_up_is_said_later(
    limiter: SharedLimiter, store: RedisLimits, own_redis: RedisServer
) -> None:
    await limiter.reserve("a", charges(), 30.0, Lost.SHARE)
    own_redis.pause()
    settling = asyncio.create_task(limiter.settle("a", [1, 40, 0]))
    await asyncio.sleep(0)
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)
    assert not limiter.idle
    own_redis.resume()
    await limiter.beat()
    assert limiter.idle
    assert await left(store, TOKENS) == 9_960


class Stuck(RedisLimits):
    """Hears of everything but settlements, for a while."""

    def __init__(self, url: str) -> None:
        super().__init__(url, TIMEOUT_S)
        self.reached, self.free = asyncio.Event(), asyncio.Event()

    async def settle(self, *args: Any, **kwargs: Any) -> bool:
        self.reached.set()
        await self.free.wait()
        return await super().settle(*args, **kwargs)


async def test_who_is_stopped_while_telling_still_tells_it(own_redis: RedisServer, store: RedisLimits) -> None:
    stuck = Stuck(own_redis.url)
    limiter = SharedLimiter(stuck, Clock(), lambda _: None)
    own_redis.stop()
    await limiter.beat()
    await limiter.reserve("a", charges(), 30.0, Lost.SHARE)
    await limiter.settle("a", [1, 40, 0])
    own_redis.start()
    beating = asyncio.create_task(limiter.beat())
    await stuck.reached.wait()
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    stuck.free.set()
    await limiter.close()
    assert await left(store, TOKENS) == 9_960


async def test_a_settlement_that_redis_refuses_does_not_hold_up_the_others(
    limiter: SharedLimiter, store: RedisLimits, own_redis: RedisServer
) -> None:
    bad = [Charge("{extproc}:test:bad", TOKENS, 10)]
    await limiter.reserve("bad", bad, 30.0, Lost.SHARE)
    await limiter.reserve("good", charges(), 30.0, Lost.SHARE)
    own_redis.pause()
    await limiter.settle("good", [1, 40, 0])  # waits in vain
    await limiter.settle("bad", [10])
    own_redis.resume()
    client = redis.asyncio.Redis.from_url(own_redis.url)
    await client.delete("{extproc}:test:bad")
    await client.execute_command("HSET", "{extproc}:test:bad", "a", "b")  # type: ignore[no-untyped-call]
    await client.execute_command("HDEL", "{extproc}:open", "bad")  # type: ignore[no-untyped-call]
    await client.aclose()
    await limiter.beat()
    assert not limiter.lost
    assert limiter.idle
    assert await left(store, TOKENS) == 9_960


async def test_a_limit_that_is_counted_otherwise_under_its_old_name_begins_anew(store: RedisLimits) -> None:
    kinds = (gauge("x", 5), bucket("x", Measure.TOKENS, 5, 60_000), sliding("x", Measure.TOKENS, 5, 60_000),
             bucket("x", Measure.REQUESTS, 5, 60_000))  # fmt: skip
    for limit in (*kinds, *reversed(kinds)):
        taken = (await store.reserve("", [Charge(key_of(limit, "k"), limit, 1)], 0)).states[0]
        assert taken.remaining in (3, 4), limit


@pytest.mark.parametrize("limit", [REQUESTS, TOKENS, budget("b", 1_000, Period.MONTH)], ids=lambda limit: limit.name)
async def test_any_usage_that_an_upstream_reports_can_be_settled(
    store: RedisLimits, own_redis: RedisServer, limit: Limit
) -> None:
    client = redis.asyncio.Redis.from_url(own_redis.url)
    charge = Charge(f"{{extproc}}:test:absurd-{limit.name}", limit, 1)
    for name, actual in (("huge", 10**18), ("negative", -(10**18))):
        assert (await store.reserve(name, [charge], TTL_MS)).admitted
        assert await store.settle(name, [charge], [actual])
        state = (await store.reserve("", [Charge(charge.key, limit, 0)], 0)).states[0]
        assert 0 <= state.remaining <= limit.amount
        await client.delete(charge.key)
    await client.aclose()


async def test_on_a_cluster_every_key_is_in_one_slot(tmp_path: pathlib.Path) -> None:
    server = RedisServer(tmp_path, "--cluster-enabled", "yes")
    client = redis.asyncio.Redis.from_url(server.url)
    await client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")  # type: ignore[no-untyped-call]
    store = RedisLimits(server.url, 5.0)
    try:
        async with asyncio.timeout(10):
            while b"cluster_state:ok" not in await client.execute_command("CLUSTER", "INFO"):  # type: ignore[no-untyped-call] # noqa: ASYNC110
                await asyncio.sleep(0.05)
        subject = "a-key|vendor/model:{tag}"
        taken = [Charge(key_of(limit, subject), limit, 1) for limit in (REQUESTS, TOKENS, SLOTS)]
        assert (await store.reserve("a", taken, TTL_MS)).admitted
        assert await store.extend("a", taken, [0, 5, 0])
        assert (await store.reserve("dead", taken, 1)).admitted
        await asyncio.sleep(0.01)
        assert await store.live("replica", ["a"], TTL_MS) == (1, 1)
        assert await store.settle("a", taken, [1, 3, 0])
        assert await store.settle("dead", (), [1, 3, 0])
        keys = [key.decode() for key in await client.keys()]
        assert len(keys) == 4
        slots = {await client.execute_command("CLUSTER", "KEYSLOT", key) for key in keys}  # type: ignore[no-untyped-call]
        assert len(slots) == 1
    finally:
        await store.close()
        await client.aclose()
        server.close()
