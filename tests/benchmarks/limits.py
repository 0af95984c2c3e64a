"""What limits cost: round trips, time, throughput and Redis memory. Starts a Redis of its own.

`python tests/benchmarks/limits.py [--keys 100000]`
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import orjson
import redis.asyncio

from extproc.clock import Clock
from extproc.config.policy import PolicyMode
from extproc.exchange.messages import Event, RequestBody, RequestHeaders, ResponseBody, ResponseHeaders
from extproc.limits import Charge, Limit, Lost, Measure, Period, bucket, budget, gauge, key_of, sliding
from extproc.policies.limit_settings import Settings
from extproc.stores.limiter import SharedLimiter
from extproc.stores.limits import RedisLimits
from tests.helpers.journeys import KEY, Inside
from tests.helpers.redis import RedisServer


def limits(scale: int) -> tuple[Limit, ...]:
    """One of every kind that a key can have, with `scale` times a pro key's amounts."""
    return (
        bucket("requests-minute", Measure.REQUESTS, 500 * scale, 60_000),
        bucket("tokens-minute", Measure.TOKENS, 500_000 * scale, 60_000),
        bucket("tokens-day", Measure.TOKENS, 5_000_000 * scale, 86_400_000),
        sliding("output-hour", Measure.OUTPUT_TOKENS, 5_000_000 * scale, 3_600_000),
        gauge("slots", 100 * scale),
        budget("month", 10**12 * scale, Period.MONTH),
    )


# Never used up, for what is measured with few keys; and a key's own, half of them used, for memory.
ENDLESS, REAL = limits(1000), limits(1)
COST = {
    Measure.REQUESTS: 1, Measure.TOKENS: 50, Measure.OUTPUT_TOKENS: 30, Measure.CONCURRENT: 1, Measure.MONEY: 900,
}  # fmt: skip
ACTUAL = {**COST, Measure.TOKENS: 30, Measure.OUTPUT_TOKENS: 10, Measure.CONCURRENT: 0, Measure.MONEY: 700}
TTL_S = 30.0
BODY = orjson.dumps({"model": "talker", "messages": [{"role": "user", "content": "word " * 400}]})
ANSWER = orjson.dumps(
    {
        "id": "u", "object": "chat.completion", "created": 1, "model": "up",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 400, "completion_tokens": 1, "total_tokens": 401},
    }
)  # fmt: skip
_ids = itertools.count()


async def one(limiter: SharedLimiter, subject: str) -> float:
    """A reservation and its settlement; how long the reservation took."""
    name = f"bench-{next(_ids)}"
    taken = [Charge(key_of(limit, subject), limit, COST[limit.measure]) for limit in ENDLESS]
    began_s = time.perf_counter()
    admission = await limiter.reserve(name, taken, TTL_S, Lost.CLOSED)
    took_s = time.perf_counter() - began_s
    assert admission.admitted
    await limiter.settle(name, [ACTUAL[limit.measure] for limit in ENDLESS])
    return took_s


async def half_used(limiter: SharedLimiter, subject: str) -> list[str]:
    """A key that has used half of each of its limits; the names of its counters."""
    name = f"bench-{next(_ids)}"
    taken = [Charge(key_of(limit, subject), limit, limit.amount // 2) for limit in REAL]
    await limiter.reserve(name, taken, TTL_S, Lost.CLOSED)
    await limiter.settle(name, [charge.cost for charge in taken])
    return [charge.key for charge in taken]


async def latency(limiter: SharedLimiter, subjects: Sequence[str]) -> str:
    took = [await one(limiter, subject) for subject in subjects]
    return f"p50 {statistics.median(took) * 1e3:.2f} ms, p99 {statistics.quantiles(took, n=100)[98] * 1e3:.2f} ms"


async def throughput(limiter: SharedLimiter, seconds: float, at_once: int = 64) -> float:
    until_s, done = time.perf_counter() + seconds, 0

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() < until_s:
            await one(limiter, f"throughput-{number}")
            done += 1

    await asyncio.gather(*(client(number) for number in range(at_once)))
    return done / seconds


async def exchanges(directory: Path, limiter: SharedLimiter, mode: PolicyMode, times: int) -> float:
    """Median ms of a whole exchange in process: parsed, counted, limited, answered; no Envoy."""
    inside = Inside(directory, {"limit": Settings(mode=mode)}, limiter)
    took = []
    for _ in range(times):
        head = {":method": "POST", ":path": "/v1/chat/completions", "authorization": f"Bearer {KEY}"}
        events: list[Event] = [
            RequestHeaders({**head, "x-request-id": f"x-{next(_ids)}"}),
            RequestBody(BODY, last=True),
        ]
        events += [
            ResponseHeaders({":status": "200", "content-type": "application/json"}),
            ResponseBody(ANSWER, last=True),
        ]
        began_s = time.perf_counter()
        await inside.exchange(events, finish=False)
        took.append(time.perf_counter() - began_s)
        await inside.settle()
    return statistics.median(took) * 1e3


async def measure(server: RedisServer, directory: Path, keys: int) -> None:
    client = redis.asyncio.Redis.from_url(server.url)
    limiter = SharedLimiter(RedisLimits(server.url, 5.0), Clock(), lambda _: None)
    await limiter.beat()

    async def calls() -> int:
        return int((await client.info("commandstats")).get("cmdstat_evalsha", {}).get("calls", 0))

    before = await calls()
    print(f"reserve, {len(ENDLESS)} limits: {await latency(limiter, ['one'] * 2000)}")
    print(f"scripts per request, reserve and settle: {(await calls() - before) / 2000:.2f}")
    print(f"throughput, 64 at once: {await throughput(limiter, 5.0):.0f} reserved and settled a second")

    used = [int(await client.memory_usage(key) or 0) for key in await half_used(limiter, "one")]
    print(f"Redis memory of one active key with {sum(map(bool, used))} counters: {sum(used)} bytes")

    without = await exchanges(directory, limiter, PolicyMode.OFF, 1500)
    with_limits = await exchanges(directory, limiter, PolicyMode.ENFORCE, 450)  # a pro key has 500 a minute
    print(f"added to an exchange, median: {with_limits - without:.2f} ms ({without:.2f} ms without)")

    empty = int((await client.info("memory"))["used_memory"])
    for start in range(0, keys, 200):
        await asyncio.gather(*(half_used(limiter, f"key-{number}") for number in range(start, start + 200)))
    grown = int((await client.info("memory"))["used_memory"]) - empty
    print(f"{keys} keys: {grown / keys:.0f} bytes each of Redis's memory")
    spread = [f"key-{number * 37 % keys}" for number in range(2000)]
    print(f"reserve with {keys} keys: {await latency(limiter, spread)}")
    await limiter.close()
    await client.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    with tempfile.TemporaryDirectory() as folder:
        running = RedisServer(Path(folder))
        try:
            asyncio.run(measure(running, Path(folder), parser.parse_args().keys))
        finally:
            running.close()
