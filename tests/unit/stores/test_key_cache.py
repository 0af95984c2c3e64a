"""How long an answer about a key is believed, by an injected clock and a store that is told what to say."""

import datetime

import pytest

from extproc.clock import Clock
from extproc.config.model import StaticKey
from extproc.config.tier import Tier
from extproc.stores.errors import StoreUnavailable
from extproc.stores.key_cache import FRESH_S, RETRY_S, STALE_S, UNKNOWN_FRESH_S, CachedKeys
from extproc.stores.keys import ALL_KEYS, KeyHasher, KeyRecord

HASHER = KeyHasher(b"a secret for tests only, 32 bytes")


class ScriptedStore:
    """Says what it is told, and counts how often it was asked."""

    def __init__(self) -> None:
        self.records: dict[str, KeyRecord] = {}
        self.lost = False
        self.asked = 0

    def add(self, text: str, *, revoked: bool = False) -> None:
        key_hash = HASHER.hash(text)
        self.records[key_hash] = KeyRecord(
            id=f"key-{text}", hash=key_hash, name=text, team="t", tier=Tier.BASIC, models=("m",), revoked=revoked,
            created=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        )  # fmt: skip

    async def lookup(self, key_hash: str) -> KeyRecord | None:
        self.asked += 1
        if self.lost:
            raise StoreUnavailable("lost")
        return self.records.get(key_hash)


class Bench:
    """A cache over a scripted store, at a time that tests set."""

    def __init__(self, capacity: int = 100) -> None:
        self.now_s = 1000.0
        self.store = ScriptedStore()
        static = {"ci": StaticKey(hash=HASHER.hash("static"), team="platform", tier=Tier.PRO)}
        self.keys = CachedKeys(self.store, HASHER, static, Clock(monotonic=lambda: self.now_s), capacity)

    async def knows(self, text: str) -> bool:
        return await self.keys.authenticate(text) is not None


async def test_a_known_key_is_asked_for_again_only_when_its_time_is_up() -> None:
    bench = Bench()
    bench.store.add("a")
    for _ in range(3):
        assert await bench.knows("a")
    assert bench.store.asked == 1
    bench.now_s += FRESH_S
    assert await bench.knows("a")
    assert bench.store.asked == 2


async def test_an_unknown_key_is_remembered_for_a_moment() -> None:
    bench = Bench()
    assert not await bench.knows("a")
    bench.store.add("a")
    assert not await bench.knows("a")
    assert bench.store.asked == 1
    bench.now_s += UNKNOWN_FRESH_S
    assert await bench.knows("a")


async def test_a_revoked_key_is_nobodys() -> None:
    bench = Bench()
    bench.store.add("a", revoked=True)
    assert not await bench.knows("a")


async def test_a_static_key_needs_no_store() -> None:
    bench = Bench()
    bench.store.lost = True
    principal = await bench.keys.authenticate("static")
    assert principal is not None
    assert (principal.id, principal.team, principal.tier) == ("ci", "platform", "pro")
    assert bench.store.asked == 0


async def test_a_change_is_forgotten_at_once() -> None:
    bench = Bench()
    bench.store.add("a")
    assert await bench.knows("a")
    bench.store.add("a", revoked=True)
    bench.keys.forget(HASHER.hash("a"))
    assert not await bench.knows("a")


async def test_after_missed_changes_every_key_is_asked_for_again_but_still_served_stale() -> None:
    bench = Bench()
    bench.store.add("a")
    assert await bench.knows("a")
    bench.keys.forget(ALL_KEYS)
    bench.store.lost = True
    assert await bench.knows("a")
    assert bench.store.asked == 2


async def test_a_lost_store_is_not_asked_for_every_request() -> None:
    bench = Bench()
    bench.store.add("a")
    assert await bench.knows("a")
    bench.store.lost = True
    bench.now_s += FRESH_S
    for _ in range(5):
        assert await bench.knows("a")
        assert bench.keys.degraded
    assert bench.store.asked == 2
    bench.now_s += RETRY_S
    bench.store.lost = False
    assert await bench.knows("a")
    assert not bench.keys.degraded


async def test_what_is_too_old_is_not_served() -> None:
    bench = Bench()
    bench.store.add("a")
    assert await bench.knows("a")
    bench.store.lost = True
    bench.now_s += STALE_S
    assert await bench.knows("a")
    bench.now_s += RETRY_S
    with pytest.raises(StoreUnavailable):
        await bench.knows("a")


async def test_guessing_keys_does_not_push_known_ones_out() -> None:
    bench = Bench(capacity=2)
    bench.store.add("a")
    assert await bench.knows("a")
    for guess in range(10):
        assert not await bench.knows(f"guess-{guess}")
    asked = bench.store.asked
    assert await bench.knows("a")
    assert bench.store.asked == asked


async def test_the_least_recently_used_key_makes_room() -> None:
    bench = Bench(capacity=2)
    for text in "abc":
        bench.store.add(text)
    for text in "abac":  # a is used again, so b goes
        assert await bench.knows(text)
    asked = bench.store.asked
    assert await bench.knows("a")
    assert bench.store.asked == asked
    assert await bench.knows("b")
    assert bench.store.asked == asked + 1


def test_the_hash_depends_on_the_secret() -> None:
    assert KeyHasher(b"one secret that is long").hash("k") != KeyHasher(b"another one that is long").hash("k")
    assert HASHER.hash("k") == KeyHasher(b"a secret for tests only, 32 bytes").hash("k")
    assert len(HASHER.hash("k\ud800")) == 64
