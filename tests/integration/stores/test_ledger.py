"""The ledger in a real Redis: each request once, trimmed, whatever happens to Redis or to whoever writes."""

import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest
import redis.asyncio
from prometheus_client import CollectorRegistry

from extproc.stores import ledger_feed
from extproc.stores.errors import StoreUnavailable
from extproc.stores.ledger import FIELDS, IDS, STREAM, Extent, Ledger, Retention
from extproc.stores.ledger_feed import LedgerFeed
from extproc.stores.spool import SpoolReader, SpoolWriter
from tests.helpers.redis import RedisServer

TIMEOUT_S = 0.25  # where Redis is lost
PATIENT_S = 10.0  # where it is there: the machine may be busy
KEPT = Retention(max_age_days=35, max_records=100_000)
LIMIT_BYTES = 8 * 1024 * 1024
ROOT = pathlib.Path(__file__).resolve().parents[3]


@contextlib.asynccontextmanager
async def open_ledger(
    server: RedisServer, retention: Retention = KEPT, timeout_s: float = PATIENT_S
) -> AsyncIterator[Ledger]:
    ledger = Ledger(server.url, timeout_s, retention)
    try:
        yield ledger
    finally:
        await ledger.close()


async def records(ledger: Ledger, since_s: float | None = None) -> list[Mapping[str, str]]:
    return [record async for page in ledger.pages(since_s) for record in page]


def event(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"id-{number}", "time": time.time(), "prompt_tokens": number, "price_nano": 10**12 + number, **more}


def line(number: int) -> bytes:
    return orjson.dumps({"message": "usage", **event(number)}, option=orjson.OPT_APPEND_NEWLINE)


def numbers(found: list[Mapping[str, str]]) -> list[int]:
    return [int(record["prompt_tokens"]) for record in found]


def sample(feed: LedgerFeed, name: str, labels: dict[str, str] | None = None) -> float | None:
    registry = CollectorRegistry()
    registry.register(feed)
    return registry.get_sample_value(name, labels or {})


async def until(done: Any, timeout_s: float = 15.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await done():  # noqa: ASYNC110 (what is waited for is in another process)
            await asyncio.sleep(0.05)


async def test_a_record_has_every_field_and_nothing_else(own_redis: RedisServer) -> None:
    async with open_ledger(own_redis) as ledger:
        given = event(7, team="x", ttft_ms=1.25, termination="COMPLETED", secret="no field of the ledger")
        assert await ledger.append([given]) == 1
        (record,) = await records(ledger)
    assert tuple(record) == FIELDS
    assert record["price_nano"] == "1000000000007"
    assert (record["id"], record["team"], record["ttft_ms"], record["arm"], record["cache"]) == (
        "id-7", "x", "1.25", "", "",
    )  # fmt: skip
    assert float(record["time"]) == given["time"]


async def test_an_id_is_recorded_once_within_a_batch_and_later(own_redis: RedisServer) -> None:
    async with open_ledger(own_redis) as ledger:
        assert await ledger.append([event(1), event(2), event(1, team="second")]) == 2
        assert await ledger.append([event(2), event(3)]) == 1
        found = await records(ledger)
    assert numbers(found) == [1, 2, 3]
    assert found[0]["team"] == ""


async def test_writers_at_the_same_time_record_each_id_once(own_redis: RedisServer) -> None:
    async with open_ledger(own_redis) as one, open_ledger(own_redis) as other:
        batches = [[event(number) for number in range(start, start + 40)] for start in range(0, 200, 20)]
        new = await asyncio.gather(*(ledger.append(batch) for batch in batches for ledger in (one, other)))
        assert sum(new) == 220
        assert sorted(numbers(await records(one))) == list(range(220))


async def test_more_than_asked_for_is_trimmed_and_its_ids_are_forgotten(own_redis: RedisServer) -> None:
    async with open_ledger(own_redis, Retention(max_age_days=1, max_records=1000)) as ledger:
        for start in range(0, 3000, 50):
            await ledger.append([event(number) for number in range(start, start + 50)])
        found = await records(ledger)
        extent = await ledger.extent()
        assert 1000 <= len(found) < 1200
        assert numbers(found) == list(range(3000 - len(found), 3000))
        assert extent == Extent(len(found), 3000 - len(found))
        known = [number for number in numbers(found) if number < 2990]
        assert await ledger.append([event(known[0]), event(known[-1])]) == 0
        client: Any = redis.asyncio.Redis.from_url(own_redis.url)
        ids = await client.execute_command("ZCARD", IDS)
        await client.aclose()
        # Those of the oldest entry's own millisecond stay with it.
        assert len(found) <= ids <= len(found) + 50


async def test_what_is_too_old_is_trimmed(own_redis: RedisServer) -> None:
    client: Any = redis.asyncio.Redis.from_url(own_redis.url)
    week_ago_ms = int((time.time() - 7 * 86400) * 1000)
    for number in range(300):
        await client.execute_command("XADD", STREAM, f"{week_ago_ms}-{number + 1}", "id", f"old-{number}")
        await client.execute_command("ZADD", IDS, week_ago_ms, f"old-{number}")
    async with open_ledger(own_redis, Retention(max_age_days=8, max_records=1000)) as ledger:
        await ledger.append([event(1)])
        assert len(await records(ledger)) == 301
    async with open_ledger(own_redis, Retention(max_age_days=6, max_records=1000)) as ledger:
        await ledger.append([event(2)])
        left = await records(ledger)
        # The last node of the stream is shared by old and new.
        assert len(left) < 110
        assert {"id-1", "id-2"} <= {record["id"] for record in left}
    await client.aclose()


async def test_reading_goes_page_by_page_from_any_moment(own_redis: RedisServer) -> None:
    async with open_ledger(own_redis) as ledger:
        for start in range(0, 1200, 60):
            await ledger.append([event(number) for number in range(start, start + 60)])
        sizes = [len(page) async for page in ledger.pages()]
        assert sizes == [500, 500, 200]
        assert await records(ledger, time.time() + 3600) == []
        assert len(await records(ledger, time.time())) == 1200  # a minute's grace for clocks


async def test_an_empty_ledger(own_redis: RedisServer) -> None:
    async with open_ledger(own_redis) as ledger:
        assert await records(ledger) == []
        assert await ledger.extent() == Extent(0, 0)


async def test_a_lost_redis_is_the_stores_failure(own_redis: RedisServer) -> None:
    async with open_ledger(own_redis, timeout_s=TIMEOUT_S) as hasty:
        own_redis.pause()
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await hasty.append([event(1)])
        assert time.monotonic() - began_s < PATIENT_S
        own_redis.resume()
    async with open_ledger(own_redis) as ledger:
        assert await ledger.append([event(1), event(2)]) >= 1  # the first may have been taken before it was given up
        assert numbers(await records(ledger)) == [1, 2]


async def test_what_was_spooled_while_redis_was_away_arrives_once(
    own_redis: RedisServer, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = SpoolWriter(tmp_path / "spool", "w", LIMIT_BYTES)
    reader = SpoolReader(tmp_path / "spool")
    async with open_ledger(own_redis) as ledger:
        feed = LedgerFeed(reader, Ledger(own_redis.url, TIMEOUT_S, KEPT))
        running = asyncio.create_task(feed.run())

        async def all_carried() -> bool:
            return reader.waiting_bytes() == 0

        assert all(writer.append(line(number)) for number in range(100))
        await until(all_carried)
        own_redis.stop()
        assert all(writer.append(line(number)) for number in range(100, 300))
        await asyncio.sleep(1.0)
        assert reader.waiting_bytes() > 0
        assert sample(feed, "extproc_ledger_degraded") == 1
        own_redis.start()
        await until(all_carried)
        own_redis.pause()
        assert all(writer.append(line(number)) for number in range(300, 400))
        await asyncio.sleep(0.6)
        own_redis.resume()
        await until(all_carried)
        running.cancel()
        await feed.finish(1.0)
        assert sorted(numbers(await records(ledger))) == list(range(400))
        assert sample(feed, "extproc_ledger_degraded") == 0
        assert sample(feed, "extproc_ledger_waiting_bytes") == 0
    messages = [record.message for record in caplog.records]
    assert messages.count("the ledger can't be reached; usage waits on disk") == messages.count("the ledger is back")
    assert 1 <= len(messages) <= 4  # no storm
    writer.close()


async def test_a_batch_of_which_nobody_knows_whether_it_arrived_is_repeated_harmlessly(
    own_redis: RedisServer, tmp_path: pathlib.Path
) -> None:
    writer, reader = SpoolWriter(tmp_path, "w", LIMIT_BYTES), SpoolReader(tmp_path)
    for number in range(10):
        writer.append(line(number))
    async with open_ledger(own_redis) as ledger:
        batch = reader.next_batch(5)
        assert batch is not None
        await ledger.append([orjson.loads(text) for text in batch.lines])  # and then it died, before `done`
        feed = LedgerFeed(SpoolReader(tmp_path), Ledger(own_redis.url, PATIENT_S, KEPT))
        await feed.finish(5.0)
        assert numbers(await records(ledger)) == list(range(10))
        assert sample(feed, "extproc_ledger_records_total", {"outcome": "recorded"}) == 5
        assert sample(feed, "extproc_ledger_records_total", {"outcome": "known"}) == 5
    writer.close()


async def test_lines_that_are_no_events_hold_up_nothing(own_redis: RedisServer, tmp_path: pathlib.Path) -> None:
    writer = SpoolWriter(tmp_path, "w", LIMIT_BYTES)
    for text in (line(1), b"{torn\n", b"[]\n", b'{"time": 1}\n', b"x" * 70_000 + b"\n", line(2)):
        writer.append(text)
    feed = LedgerFeed(SpoolReader(tmp_path), Ledger(own_redis.url, TIMEOUT_S, KEPT))
    await feed.finish(5.0)
    async with open_ledger(own_redis) as ledger:
        assert numbers(await records(ledger)) == [1, 2]
    assert sample(feed, "extproc_ledger_records_total", {"outcome": "unreadable"}) == 5
    writer.close()


async def test_a_changed_configuration_takes_the_feed_to_another_ledger(
    own_redis: RedisServer, shared_redis: RedisServer, tmp_path: pathlib.Path
) -> None:
    writer = SpoolWriter(tmp_path, "w", LIMIT_BYTES)
    feed = LedgerFeed(SpoolReader(tmp_path), Ledger(f"unix://{tmp_path}/nobody.sock", TIMEOUT_S, KEPT))
    writer.append(line(5))
    running = asyncio.create_task(feed.run())
    await asyncio.sleep(0.2)
    feed.change(Ledger(own_redis.url, TIMEOUT_S, KEPT))
    async with open_ledger(own_redis) as ledger:

        async def arrived() -> bool:
            return numbers(await records(ledger)) == [5]

        await until(arrived)
    running.cancel()
    await feed.finish(1.0)
    writer.close()


CARRIER = """
import asyncio, sys
from pathlib import Path
from extproc.stores.ledger import Ledger, Retention
from extproc.stores.ledger_feed import LedgerFeed
from extproc.stores.spool import SpoolReader

async def run():
    feed = LedgerFeed(SpoolReader(Path(sys.argv[1])), Ledger(sys.argv[2], 0.25, Retention(35, 100_000)))
    await feed.run()

asyncio.run(run())
"""
WRITER = """
import os, sys
from pathlib import Path
from extproc.stores.spool import SpoolWriter

import orjson
writer = SpoolWriter(Path(sys.argv[1]), sys.argv[2], 8 * 1024 * 1024)
number = int(sys.argv[3])
while True:
    event = {"id": f"id-{number}", "time": 1.0, "prompt_tokens": number, "note": "x" * 300}
    if writer.append(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)):
        os.write(1, b"%d\\n" % number)  # acknowledged
    number += 1
"""


def spawn(program: str, *arguments: object, **more: Any) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], env=env, **more)


async def test_killed_writers_and_carriers_lose_nothing_that_was_acknowledged(
    own_redis: RedisServer, tmp_path: pathlib.Path
) -> None:
    spool = tmp_path / "spool"
    acknowledged: set[int] = set()
    carrier = spawn(CARRIER, spool, own_redis.url)
    for turn in range(3):
        writer = spawn(WRITER, spool, f"w{turn}", turn * 1_000_000, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(1500 * (turn + 1)):  # the last ones fill more than one segment
            acknowledged.add(int(writer.stdout.readline()))
        carrier.send_signal(signal.SIGKILL)  # between two batches, or within one
        writer.send_signal(signal.SIGKILL)
        acknowledged.update(int(left) for left in writer.stdout.read().splitlines())
        carrier.wait()
        writer.wait()
        writer.stdout.close()
        carrier = spawn(CARRIER, spool, own_redis.url)
    reader = SpoolReader(spool)

    async def carried() -> bool:
        return list(spool.glob("*.jsonl")) == []

    await until(carried, 60.0)
    carrier.send_signal(signal.SIGKILL)
    carrier.wait()
    assert reader.waiting_bytes() == 0
    async with open_ledger(own_redis) as ledger:
        found = numbers(await records(ledger))
    assert len(found) == len(set(found))
    assert acknowledged <= set(found)
    # A writer that was killed may have had one line in the spool that it hadn't acknowledged yet.
    assert len(found) <= len(acknowledged) + 3


def test_a_batch_is_small_enough_not_to_hold_up_redis() -> None:
    assert ledger_feed.BATCH * len(FIELDS) < 4000
