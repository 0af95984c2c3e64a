"""Pending tokens in a real Redis: each worker hears the others, and who is silent is forgotten."""

import pytest

from extproc import config
from extproc.clock import Clock
from extproc.routing.endpoint_book import EndpointBook
from extproc.stores.pending import KEEP_S, Heard, PendingStore, SharedPending
from tests.helpers.redis import RedisServer

A, B = "10.0.0.1:8000", "10.0.0.2:8000"
KEY = "{extproc}:pending:p"
CONFIG = """
keys: {hash_secret: 0123456789abcdef}
models: {m: {pool: p, operations: [chat], context_window: 100}}
pools:
  p:
    {dialect: openai, model: x, balancing: least_tokens, clusters: {c: {endpoints: ["10.0.0.1:8000", "10.0.0.2:8000"]}}}
"""


async def test_each_hears_the_others(own_redis: RedisServer) -> None:
    one, two, three = stores = [PendingStore(own_redis.url, 1.0) for _ in range(3)]
    assert await one.exchange({"p": {A: 5}, "q": {B: 1}}) == {"p": Heard({}, 0), "q": Heard({}, 0)}
    assert await two.exchange({"p": {A: 10, B: 1}}) == {"p": Heard({A: 5}, 1)}
    assert await three.exchange({"p": {}}) == {"p": Heard({A: 15, B: 1}, 2)}
    assert await three.exchange({}) == {}
    assert await one.exchange({"p": {A: 7}}) == {"p": Heard({A: 10, B: 1}, 1)}
    assert await two.exchange({"p": {}}) == {"p": Heard({A: 7}, 1)}
    assert await one.exchange({"p": {A: 7}}) == {"p": Heard({}, 0)}
    assert await three.read("p") == Heard({A: 7}, 1)
    for store in stores:
        await store.close()


async def test_what_nobody_renews_is_forgotten(own_redis: RedisServer) -> None:
    store = PendingStore(own_redis.url, 1.0, "me")
    await store.exchange({"p": {A: 5}})
    with own_redis.client() as redis:
        (left_ms,) = redis.execute_command("HPTTL", KEY, "FIELDS", 1, "me")
        assert 0 < left_ms <= KEEP_S * 1000
        redis.execute_command("HPEXPIRE", KEY, 1, "FIELDS", 1, "me")
        other = PendingStore(own_redis.url, 1.0)
        while redis.hlen(KEY):
            pass
        assert await other.exchange({"p": {}}) == {"p": Heard({}, 0)}
    await other.close()
    await store.close()


async def test_what_can_not_be_read_is_left_out(own_redis: RedisServer) -> None:
    with own_redis.client() as redis:
        redis.hset(KEY, mapping={"newer": b"\xc1", "odd": b'{"a": "b"}', "below": b'{"10.0.0.1:8000": -5}'})
    store = PendingStore(own_redis.url, 1.0)
    assert await store.exchange({"p": {}}) == {"p": Heard({}, 1)}
    await store.close()


async def test_without_redis_others_count_until_what_they_said_is_old(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    book, times_s, lost = EndpointBook(), [100.0], list[bool]()
    book.take_up(config.parse(CONFIG, {}, {}))
    endpoints = book.of("p")
    assert endpoints is not None
    shared = SharedPending(PendingStore(own_redis.url, 0.2), book, Clock(monotonic=lambda: times_s[-1]), lost.append)
    other = PendingStore(own_redis.url, 1.0)
    await other.exchange({"p": {A: 100}})
    await shared.beat()
    assert endpoints.pending(A) == 100
    own_redis.stop()
    await shared.beat()
    assert (endpoints.pending(A), lost) == (100, [False, False, True])
    times_s.append(times_s[-1] + KEEP_S + 0.1)
    endpoints.take(A, 1)
    await shared.beat()
    assert (endpoints.pending(A), shared.age_s > KEEP_S) == (1, True)
    own_redis.start()
    await other.exchange({"p": {A: 200}})
    await shared.beat()
    assert (endpoints.pending(A), shared.age_s, lost) == (201, 0, [False, False, True, False])
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert said == ["Redis is lost", "Redis is back"]
    await shared.close()
    await other.close()


async def test_a_new_redis_or_none_to_ask_ends_the_outage(own_redis: RedisServer) -> None:
    """Whoever was there before said that it is lost, and may say so once more after its successor was made."""
    book, lost = EndpointBook(), list[bool]()
    book.take_up(config.parse(CONFIG, {}, {}))
    away = SharedPending(PendingStore("redis://127.0.0.1:1", 0.2), book, Clock(), lost.append)
    here = SharedPending(PendingStore(own_redis.url, 1.0), book, Clock(), lost.append)
    await away.beat()
    assert lost == [False, False, True]
    await here.beat()
    assert lost.pop() is False
    book.take_up(config.parse(CONFIG.replace("least_tokens", "round_robin"), {}, {}))
    await away.beat()
    assert lost == [False, False, True, False]
    await away.close()
    await here.close()
