"""The scripts in Redis and the reference in Python agree on any sequence of operations, at any times."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.limits import Charge, Limit, Measure, Period, bucket, budget, gauge, key_of, sliding
from extproc.stores.limits import RedisLimits
from extproc.stores.local_share import LocalCounts
from tests.helpers.redis import RedisServer

START_MS = 1_767_225_000_000  # near the end of a day, a month and a year
TTL_MS = 5_000
LIMITS = (
    bucket("rpm", Measure.REQUESTS, 3, 7_000),
    bucket("tpm", Measure.TOKENS, 100, 60_000),
    bucket("tpm-shadow", Measure.TOKENS, 40, 30_000, shadow=True),
    sliding("window", Measure.OUTPUT_TOKENS, 60, 10_000),
    sliding("window-requests", Measure.REQUESTS, 4, 1_000),
    gauge("slots", 5),
    budget("day", 500, Period.DAY),
    budget("month", 800, Period.MONTH, soft=600),
    budget("total", 100_000, Period.TOTAL),
)
_fresh = itertools.count()

names = st.sampled_from(("a", "b", "c", "d"))
costs = st.lists(st.integers(0, 120), min_size=len(LIMITS), max_size=len(LIMITS))
percents = st.sampled_from((100, 100, 60, 25, 7, 1))
chosen = st.sets(st.integers(0, len(LIMITS) - 1), min_size=1, max_size=5).map(sorted)
delays = st.one_of(
    st.just(0), st.integers(1, 900), st.integers(1_000, 90_000), st.integers(1, 40).map(lambda d: d * 8_640_000)
)
operations = st.lists(
    st.tuples(
        delays,
        st.one_of(
            st.tuples(st.just("reserve"), names, chosen, costs, costs, percents),
            st.tuples(st.just("attempt"), names, chosen, costs, costs, percents),
            st.tuples(st.just("extend"), names, costs),
            st.tuples(st.just("settle"), names, costs, st.booleans()),
            st.tuples(st.just("live"), st.sets(names)),
        ),
    ),
    min_size=1,
    max_size=25,
)


class Pair:
    """Both implementations, given the same."""

    def __init__(self, redis: RedisLimits) -> None:
        self.redis, self.local = redis, LocalCounts()
        self.now_ms = START_MS
        self.run = next(_fresh)
        self.charges: dict[str, list[Charge]] = {}

    def charge(self, limit: Limit, cost: int, floor: int = 0, percent: int = 100) -> Charge:
        cost = min(cost, 1) if limit.measure in (Measure.REQUESTS, Measure.CONCURRENT) else cost
        scaled = limit.scaled(percent, slower=limit.name != "tpm-shadow")
        return Charge(key_of(limit, str(self.run)), scaled, cost, min(floor, cost))

    def name(self, short: str) -> str:
        return f"{self.run}-{short}"

    async def reserve(
        self, short: str, which: list[int], cost: list[int], floor: list[int], percent: int, *, keep: bool
    ) -> None:
        charges = [self.charge(LIMITS[i], cost[i], floor[i], percent) for i in which]
        name = self.name(short) if keep else ""
        if name in self.charges:  # the same again is the same charges again
            charges = self.charges[name]
        theirs = await self.redis.reserve(name, charges, TTL_MS)
        assert theirs == self.local.reserve(name, charges, TTL_MS, self.now_ms)
        if keep and theirs.admitted:
            self.charges[name] = charges

    async def extend(self, short: str, more: list[int]) -> None:
        name = self.name(short)
        charges = self.charges.get(name, [])
        more = more[: len(charges)]
        assert await self.redis.extend(name, charges, more) == self.local.extend(name, more, self.now_ms)

    async def settle(self, short: str, actual: list[int], unknown: bool) -> None:
        name = self.name(short)
        charges = self.charges.get(name) or [self.charge(limit, 1) for limit in LIMITS]
        actual = actual[: len(charges)]
        theirs = await self.redis.settle(name, charges, actual, unknown=unknown)
        assert theirs == self.local.settle(name, actual, self.now_ms, charges if unknown else None)

    async def live(self, own: set[str]) -> None:
        keep = [self.name(short) for short in sorted(own)]
        self.local.renew(keep, TTL_MS, self.now_ms)
        _, closed = await self.redis.live("replica", keep, TTL_MS)
        assert closed == self.local.reap(self.now_ms, 200)

    async def do(self, operation: tuple[Any, ...]) -> None:
        kind, *rest = operation
        if kind in ("reserve", "attempt"):
            await self.reserve(*rest, keep=kind == "reserve")
        else:
            await getattr(self, kind)(*rest)

    async def same_counters(self) -> None:
        for limit in LIMITS:
            nothing = self.charge(limit, 0)
            theirs = await self.redis.reserve("", [nothing], TTL_MS)
            assert theirs.states == (self.local.look(nothing.key, limit, self.now_ms),)


@pytest.fixture
async def redis_limits(own_redis: RedisServer) -> AsyncIterator[RedisLimits]:
    store = RedisLimits(own_redis.url, 5.0)
    yield store
    await store.close()


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(sequence=operations)
async def test_any_sequence_of_operations(redis_limits: RedisLimits, sequence: list[Any]) -> None:
    pair = Pair(redis_limits)
    redis_limits.now_ms = pair.now_ms
    # What the example before left open is nobody's here.
    await redis_limits.live("replica", [], TTL_MS)
    redis_limits.now_ms = pair.now_ms + 10**12
    await redis_limits.live("replica", [], TTL_MS)
    for delay_ms, operation in sequence:
        pair.now_ms += delay_ms
        redis_limits.now_ms = pair.now_ms
        await pair.do(operation)
    await pair.same_counters()
