"""Kept answers in a real Redis: apart, bounded, sealed, fetched once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from extproc.caching import Absent, EntryName, Found, Outcome, Quota, Room
from extproc.clock import Clock
from extproc.stores.answer_census import AnswerCensus, Which
from extproc.stores.answers import RedisAnswers, member, tenant_prefix
from extproc.stores.errors import StoreUnavailable
from tests.helpers.redis import RedisServer

PLENTY = Quota(1000, 10_000_000)
SECRET = b"a-secret-of-enough-letters"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path_factory.mktemp("redis"))
    yield running
    running.close()


@pytest.fixture
def raw(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        yield client


def store(server: RedisServer, secret: bytes = SECRET) -> RedisAnswers:
    return RedisAnswers(server.url, 5.0, 5.0, secret, Clock())


@pytest.fixture
async def answers(server: RedisServer, raw: redis.Redis) -> AsyncIterator[RedisAnswers]:
    opened = store(server)
    yield opened
    await opened.close()


def name(digest: str, tenant: str = "team:a", model: str = "m", namespace: str = "") -> EntryName:
    return EntryName(tenant, model, namespace, digest)


async def is_kept(answers: RedisAnswers, *digests: str) -> list[bool]:
    return [isinstance(await answers.get(name(digest)), Found) for digest in digests]


@pytest.mark.parametrize("body", [b"", b"short", b"long " * 1000, bytes(range(256)) * 1000], ids=len)
async def test_what_is_put_is_got(answers: RedisAnswers, body: bytes) -> None:
    assert await answers.get(name("x")) == Absent()
    await answers.put(name("x"), body, 60, PLENTY)
    got = await answers.get(name("x"))
    assert isinstance(got, Found)
    assert got.body == body
    assert 0 <= got.age_s < 5
    await answers.delete(name("x"))
    assert await answers.get(name("x")) == Absent()


async def test_names_keep_apart(answers: RedisAnswers) -> None:
    await answers.put(name("x"), b"1", 60, PLENTY)
    for other in (name("x", tenant="team:b"), name("x", model="n"), name("x", namespace="s"), name("y")):
        assert await answers.get(other) == Absent()


async def test_what_was_used_least_lately_makes_room(answers: RedisAnswers) -> None:
    quota = Quota(3, 10_000)
    for digest in "abc":
        await answers.put(name(digest), b"1", 60, quota)
    await answers.get(name("a"))
    await answers.put(name("d"), b"1", 60, quota)
    assert await is_kept(answers, *"abcd") == [True, False, True, True]
    await answers.put(name("d", tenant="team:b"), b"1", 60, quota)
    assert await is_kept(answers, *"acd") == [True, True, True]


async def test_bytes_are_bounded(answers: RedisAnswers, raw: redis.Redis) -> None:
    quota = Quota(1000, 2_000)
    noise = random.Random(1).randbytes(600)
    for digest in "abcd":
        await answers.put(name(digest), noise, 60, quota)
    assert await is_kept(answers, *"abcd") == [False, True, True, True]
    await answers.put(name("b"), noise, 60, quota)  # again: not counted twice
    assert await is_kept(answers, *"bcd") == [True, True, True]
    await answers.put(name("huge"), random.Random(2).randbytes(2400), 60, quota)
    assert await is_kept(answers, *"bcd", "huge") == [True, True, True, False]
    prefix = tenant_prefix("team:a")
    sizes = raw.hvals(prefix + "sizes")
    assert sum(map(int, sizes)) == int(raw.hget(prefix + "totals", "bytes")) <= 2_000


async def test_who_keeps_is_told_how_full_it_is(server: RedisServer, raw: redis.Redis) -> None:
    told: list[Room] = []
    counting = RedisAnswers(server.url, 5.0, 5.0, SECRET, Clock(), told.append)
    for digest in "abc":
        await counting.put(name(digest), b"1", 60, Quota(2, 10_000))
    await counting.close()
    assert [(one.evicted, one.entries_ratio) for one in told] == [(0, 0.5), (0, 1.0), (1, 1.0)]
    in_all = int(raw.hget(tenant_prefix("team:a") + "totals", "bytes") or 0)
    assert told[-1].bytes_ratio == in_all / 10_000 > 0


async def test_what_expires_is_no_longer_counted(answers: RedisAnswers, raw: redis.Redis) -> None:
    quota = Quota(2, 10_000)
    await answers.put(name("lasting"), b"1", 60, quota)
    await answers.put(name("brief"), b"1", 0.05, quota)
    await asyncio.sleep(0.1)
    await answers.put(name("new"), b"1", 60, quota)
    assert await is_kept(answers, "lasting", "brief", "new") == [True, False, True]
    assert raw.zcard(tenant_prefix("team:a") + "used") == 2
    assert all(raw.pttl(key) > 0 for key in raw.keys("*"))


async def test_a_vector_goes_with_its_entry(answers: RedisAnswers, raw: redis.Redis) -> None:
    prefix, quota = tenant_prefix("team:a"), Quota(2, 10_000)
    for digest in "ab":
        await answers.put(name(digest), b"1", 60, quota)
        raw.execute_command("VADD", prefix + "vectors-of", "VALUES", 2, 1.0, 0.5, member(name(digest)))
        raw.hset(prefix + "vectors", member(name(digest)), prefix + "vectors-of")
    await answers.put(name("c"), b"1", 60, quota)
    assert raw.execute_command("VCARD", prefix + "vectors-of") == 1
    await answers.delete(name("b"))
    assert raw.exists(prefix + "vectors-of") == 0


@pytest.mark.parametrize("cut", ["", "1:", "nothing", "1:\x01short"])
async def test_what_is_damaged_is_deleted(answers: RedisAnswers, raw: redis.Redis, cut: str) -> None:
    await answers.put(name("x"), b"answer", 60, PLENTY)
    key = f"{tenant_prefix('team:a')}e:{member(name('x'))}"
    raw.set(key, cut)
    assert await answers.get(name("x")) == Absent()
    assert raw.exists(key) == 0


async def test_every_byte_is_sealed(answers: RedisAnswers, raw: redis.Redis) -> None:
    key = f"{tenant_prefix('team:a')}e:{member(name('x'))}"
    await answers.put(name("x"), b"answer", 60, PLENTY)
    good = bytes(raw.get(key) or b"")
    for at in range(good.index(b":") + 1, len(good)):
        raw.set(key, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert await answers.get(name("x")) == Absent()


async def test_nobody_can_put_one_answer_in_anothers_place(
    server: RedisServer, answers: RedisAnswers, raw: redis.Redis
) -> None:
    def key(of: EntryName) -> str:
        return f"{tenant_prefix(of.tenant)}e:{member(of)}"

    await answers.put(name("x"), b"poison", 60, PLENTY)
    for place in (name("y"), name("x", tenant="team:b")):
        raw.set(key(place), raw.get(key(name("x"))) or b"")
        assert await answers.get(place) == Absent()
    stranger = store(server, b"another-secret-of-his-own")
    await stranger.put(name("z"), b"poison", 60, PLENTY)
    await stranger.close()
    assert await answers.get(name("z")) == Absent()


async def test_a_clock_that_jumps_makes_no_answer_older_than_it_may_be(answers: RedisAnswers, raw: redis.Redis) -> None:
    """Ages are told by Redis's clock; after a jump back they are none, and expiry stays Redis's."""
    await answers.put(name("x"), b"1", 60, PLENTY)
    key = f"{tenant_prefix('team:a')}e:{member(name('x'))}"
    stored, _, sealed = bytes(raw.get(key) or b"").partition(b":")
    raw.set(key, b"%d:%b" % (int(stored) + 3_600_000, sealed), keepttl=True)
    got = await answers.get(name("x"))
    assert isinstance(got, Found)
    assert got.age_s == 0
    raw.set(key, b"%d:%b" % (int(stored) - 90_000, sealed), keepttl=True)
    got = await answers.get(name("x"))
    assert isinstance(got, Found)
    assert 90 <= got.age_s < 100


async def test_one_leads_and_the_others_hear_of_it(server: RedisServer, answers: RedisAnswers) -> None:
    elsewhere = store(server)
    keeping = [asyncio.create_task(one.keep()) for one in (answers, elsewhere)]
    await asyncio.sleep(0.2)
    with answers.follow(name("x")) as near, elsewhere.follow(name("x")) as far:
        got = await asyncio.gather(
            *(one.get(name("x"), f"t{at}") for at, one in enumerate([answers] * 3 + [elsewhere]))
        )
        assert sum(isinstance(one, Absent) and one.leads for one in got) == 1
        leader = next(at for at, one in enumerate(got) if isinstance(one, Absent) and one.leads)
        own = answers if leader < 3 else elsewhere
        await own.release(name("x"), "another's token", Outcome.FAILED)
        assert await (far if own is answers else near).outcome(0.1) is None
        assert await own.get(name("x"), "again") == Absent(leads=False)
        await own.put(name("x"), b"1", 60, PLENTY)
        await own.release(name("x"), f"t{leader}", Outcome.STORED)
        assert [await one.outcome(5.0) for one in (near, far)][0 if own is elsewhere else 1] is Outcome.STORED
    for task in keeping:
        task.cancel()
    await asyncio.gather(*keeping, return_exceptions=True)
    await elsewhere.close()


async def test_a_lost_redis_is_not_asked_again_and_again(server: RedisServer, raw: redis.Redis) -> None:
    now_s = [0.0]
    lost = RedisAnswers("unix:///nowhere/redis.sock", 5.0, 5.0, SECRET, Clock(monotonic=lambda: now_s[0]))
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await lost.get(name("x"))
    now_s[0] = 0.6
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await lost.get(name("x"))
    with pytest.raises(StoreUnavailable, match="a moment ago"):
        await lost.get(name("x"))
    now_s[0] = 1.7
    with pytest.raises(StoreUnavailable, match="nowhere"):
        await lost.get(name("x"))
    await lost.close()


async def test_the_census(server: RedisServer, answers: RedisAnswers) -> None:
    for tenant, model, namespace in (("team:a/{b", "m/x", ""), ("principal:a/{b", "m", "n"), ("team:c", "m", "n")):
        for digest in "12":
            await answers.put(name(digest, tenant, model, namespace), b"1", 60, PLENTY)
    census = AnswerCensus(server.url, 5.0)
    held = await census.held(Which())
    assert {group: one.entries for group, one in held.items()} == {
        ("team:a/{b", "m/x", ""): 2, ("principal:a/{b", "m", "n"): 2, ("team:c", "m", "n"): 2,
    }  # fmt: skip
    assert await census.purge(Which(tenant="a/{b", model="m/x")) == 2
    assert await census.purge(Which(namespace="n")) == 4
    assert await census.held(Which()) == {}
    await census.close()
