"""What is said of experiments, in a real Redis: nothing is overwritten unseen, and everybody hears of it."""

import asyncio

import pytest

from extproc.routing.experiments import Change
from extproc.stores.errors import StoreUnavailable
from extproc.stores.experiments import CHANGES, ExperimentStore, HeardChanges
from tests.helpers.redis import RedisServer

ONE = Change("f", {"a": 1.0, "b": 0.25}, "ab set", 1.5, 1.5)
OTHER = Change("f", {"a": 1.0, "b": 0.0}, "guardrail", 2.5, 1.5, {"b": "error_rate 0.3, above 0.1"})


async def test_of_two_who_change_the_same_one_is_told(own_redis: RedisServer) -> None:
    store = ExperimentStore(own_redis.url, 1.0)
    assert await store.changes() == {}
    assert await store.change("x", None, ONE)
    assert not await store.change("x", None, OTHER)
    assert await store.changes() == {"x": ONE}
    results = await asyncio.gather(*(store.change("x", ONE, OTHER) for _ in range(5)))
    assert sorted(results) == [False] * 4 + [True]
    assert not await store.change("x", ONE, None)
    assert await store.change("x", OTHER, None)
    assert await store.changes() == {}
    await store.close()


async def test_when_it_was_first_seen(own_redis: RedisServer) -> None:
    store = ExperimentStore(own_redis.url, 1.0)
    assert await store.began("x", "f") == 0.0
    assert await store.begin("x", "f", 5.5) == 5.5
    assert await store.begin("x", "f", 9.0) == 5.5
    assert await store.begin("x", "g", 9.0) == 9.0
    await store.close()


async def test_what_was_heard_stays_while_redis_is_lost(own_redis: RedisServer) -> None:
    store, lost = ExperimentStore(own_redis.url, 0.2), list[bool]()
    heard = HeardChanges(store, lost.append)
    await store.change("x", None, ONE)
    with own_redis.client() as client:
        client.hset(CHANGES, "newer", b"{}")  # by a version that writes something else
    await heard.listen()
    assert (heard.of("x"), heard.of("y"), heard.of("newer")) == (ONE, None, None)
    own_redis.stop()
    await heard.listen()
    await heard.listen()
    assert (heard.of("x"), lost) == (ONE, [False, True])
    with pytest.raises(StoreUnavailable):
        await store.changes()
    own_redis.start()
    with own_redis.client() as client:
        client.delete(CHANGES)
    await heard.listen()
    assert (heard.of("x"), lost) == (None, [False, True, False])
    await heard.close()
