"""API keys in a real Redis: changes are seen at once, and a lost Redis never makes anyone wait for long."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from extproc.clock import Clock
from extproc.config.model import StaticKey
from extproc.config.tier import Tier
from extproc.principal import Principal
from extproc.stores.errors import StoreTimeout, StoreUnavailable
from extproc.stores.key_cache import FRESH_S, CachedKeys
from extproc.stores.keys import ALL_KEYS, PREFIX, KeyHasher, KeyStore
from tests.helpers.redis import RedisServer

TIMEOUT_S = 0.25  # where Redis hangs
PATIENT_S = 10.0  # where it does not: the machine may be busy
SECRET = b"a secret for tests only, 32 bytes"
BOUND_S = 5.0  # a loaded machine adds to the time-out


@pytest.fixture
def hasher() -> KeyHasher:
    return KeyHasher(SECRET)


@contextlib.asynccontextmanager
async def open_store(server: RedisServer, hasher: KeyHasher, timeout_s: float = PATIENT_S) -> AsyncIterator[KeyStore]:
    store = KeyStore(server.url, hasher, timeout_s)
    try:
        yield store
    finally:
        await store.close()


async def test_a_created_key_is_found_by_its_hash_alone(own_redis: RedisServer, hasher: KeyHasher) -> None:
    async with open_store(own_redis, hasher) as store:
        created = await store.create(name="ci", team="platform", tier=Tier.PRO, models=["demo-llm"])
        assert created.text.startswith(PREFIX)
        assert len(created.text) == len(PREFIX) + 43
        assert await store.lookup(hasher.hash(created.text)) == created.record
        assert await store.lookup(hasher.hash("sk-xp-another")) is None
        client = redis.asyncio.Redis.from_url(own_redis.url)
        stored = await client.execute_command("HGETALL", "extproc:keys")
        await client.aclose()
        assert created.text.removeprefix(PREFIX) not in repr(stored)


async def test_keys_are_listed_oldest_first(own_redis: RedisServer, hasher: KeyHasher) -> None:
    async with open_store(own_redis, hasher) as store:
        assert await store.list() == []
        first = await store.create(name="a", team="x", tier=Tier.FREE, models=["*"])
        second = await store.create(name="b", team="x", tier=Tier.FREE, models=["*"])
        assert {record.id for record in await store.list()} == {first.record.id, second.record.id}


async def test_revoking_marks_the_key_and_may_be_repeated(own_redis: RedisServer, hasher: KeyHasher) -> None:
    async with open_store(own_redis, hasher) as store:
        created = await store.create(name="a", team="x", tier=Tier.FREE, models=["*"])
        for _ in range(2):
            revoked = await store.revoke(created.record.id)
            assert revoked is not None
            assert revoked.revoked
        found = await store.lookup(created.record.hash)
        assert found is not None
        assert found.revoked
        assert await store.revoke("key-nobody") is None


async def test_every_change_is_announced(own_redis: RedisServer, hasher: KeyHasher) -> None:
    async with open_store(own_redis, hasher) as store, contextlib.aclosing(store.watch()) as changes:
        assert await anext(changes) == ALL_KEYS
        created = await store.create(name="a", team="x", tier=Tier.FREE, models=["*"])
        assert await anext(changes) == created.record.hash
        await store.revoke(created.record.id)
        assert await anext(changes) == created.record.hash


async def test_watching_survives_a_restart_of_redis(own_redis: RedisServer, hasher: KeyHasher) -> None:
    async with open_store(own_redis, hasher) as store, contextlib.aclosing(store.watch()) as changes:
        assert await anext(changes) == ALL_KEYS
        own_redis.stop()
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.2)
        own_redis.start()
        assert await asyncio.wait_for(waiting, 5.0) == ALL_KEYS
        created = await store.create(name="a", team="x", tier=Tier.FREE, models=["*"])
        assert await anext(changes) == created.record.hash


async def test_a_revoked_key_is_refused_at_once_although_it_was_cached(
    own_redis: RedisServer, hasher: KeyHasher
) -> None:
    async with open_store(own_redis, hasher) as store:
        keys = CachedKeys(store, hasher, {}, Clock())
        following = asyncio.ensure_future(keys.follow(store.watch()))
        created = await store.create(name="a", team="x", tier=Tier.FREE, models=["*"])
        assert await keys.authenticate(created.text) == Principal(created.record.id, "x", "free", frozenset({"*"}))
        await store.revoke(created.record.id)
        async with asyncio.timeout(1.0):
            while await keys.authenticate(created.text) is not None:  # noqa: ASYNC110 (it is what we wait for)
                await asyncio.sleep(0.01)
        following.cancel()


async def test_a_stopped_redis_leaves_known_keys_working_and_unknown_ones_undecided(
    own_redis: RedisServer, hasher: KeyHasher
) -> None:
    now_s = 0.0
    async with open_store(own_redis, hasher) as store:
        static = {"ci": StaticKey(hash=hasher.hash("sk-static"), team="platform", tier=Tier.PRO)}
        keys = CachedKeys(store, hasher, static, Clock(monotonic=lambda: now_s))
        created = await store.create(name="a", team="x", tier=Tier.FREE, models=["*"])
        known = await keys.authenticate(created.text)
        own_redis.stop()
        now_s += FRESH_S + 1
        assert await keys.authenticate(created.text) == known
        assert keys.degraded
        assert await keys.authenticate("sk-static") is not None
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await keys.authenticate("sk-xp-unknown")
        assert time.monotonic() - began_s < BOUND_S
        own_redis.start()
        now_s += 2
        assert await keys.authenticate(created.text) == known
        assert not keys.degraded


async def test_a_hanging_redis_costs_no_more_than_the_timeout(own_redis: RedisServer, hasher: KeyHasher) -> None:
    async with open_store(own_redis, hasher, TIMEOUT_S) as store:
        assert await store.lookup("0" * 64) is None
        own_redis.pause()
        for _ in range(2):  # on a connection that was open, and on one that has to be opened
            began_s = time.monotonic()
            with pytest.raises(StoreTimeout):
                await store.lookup("0" * 64)
            assert time.monotonic() - began_s < BOUND_S
        own_redis.resume()
    async with open_store(own_redis, hasher) as store:
        assert await store.lookup("0" * 64) is None


async def test_an_unreadable_record_is_the_stores_failure(own_redis: RedisServer, hasher: KeyHasher) -> None:
    client = redis.asyncio.Redis.from_url(own_redis.url)
    await client.execute_command("HSET", "extproc:keys", "0" * 64, b"{}")
    await client.aclose()
    async with open_store(own_redis, hasher) as store:
        with pytest.raises(StoreUnavailable, match="can't be read"):
            await store.lookup("0" * 64)
