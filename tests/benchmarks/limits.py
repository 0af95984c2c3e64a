"""What limits cost: round trips, time, throughput and Redis memory, alone and through Envoy; and what a Redis that
hangs costs. Starts a Redis of its own.

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
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import orjson
import redis.asyncio

from extproc import gateway_file
from extproc.clock import Clock
from extproc.config.model import GatewayConfig, GrpcServer
from extproc.config.policy import PolicyMode
from extproc.exchange.messages import Event, RequestBody, RequestHeaders, ResponseBody, ResponseHeaders
from extproc.limits import Charge, Limit, Lost, Measure, Period, bucket, budget, gauge, key_of, sliding
from extproc.policies.limit_settings import Settings
from extproc.stores.limiter import SharedLimiter
from extproc.stores.limits import RedisLimits
from tests.benchmarks.rig import Heart, Rig
from tests.benchmarks.run import compare
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
TIMEOUT_S = 0.25
OFF = "policies: {limit: {mode: 'off'}}\n"
# The three limits of a pro key, and its slots, with more in them than a benchmark uses.
ON = """
policies:
  limit:
    keys:
      bench:
        requests_per_minute: 1000000000
        tokens_per_minute: 1000000000000
        tokens_per_day: 1000000000000
        concurrent_requests: 100000
"""
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


async def outage(server: RedisServer, at_once: int = 64, seconds: float = 2.0) -> str:
    """How long reservations took while Redis hung, `at_once` of them at a time, each followed by a settlement."""
    limiter = SharedLimiter(RedisLimits(server.url, TIMEOUT_S), Clock(), lambda _: None)
    await limiter.beat()
    taken = [Charge(key_of(limit, "outage"), limit, COST[limit.measure]) for limit in ENDLESS]
    waits: list[float] = []

    async def client() -> None:
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            name = f"outage-{next(_ids)}"
            began_s = time.perf_counter()
            admission = await limiter.reserve(name, taken, TTL_S, Lost.SHARE)
            waits.append(time.perf_counter() - began_s)
            if admission.admitted:
                await limiter.settle(name, [ACTUAL[limit.measure] for limit in ENDLESS])
            await asyncio.sleep(0.01)

    await asyncio.gather(*(limiter.reserve(f"warm-{next(_ids)}", taken, TTL_S, Lost.SHARE) for _ in range(at_once)))
    server.pause()
    try:
        await asyncio.gather(*(client() for _ in range(at_once)))
    finally:
        server.resume()
    await limiter.close()
    caught = sorted(wait * 1e3 for wait in waits[:at_once])
    after = sorted(wait * 1e3 for wait in waits[at_once:])
    return (
        f"the {at_once} caught in it {caught[0]:.0f} to {caught[-1]:.0f} ms, p50 {statistics.median(caught):.0f} ms; "
        f"{len(after)} later ones p50 {statistics.median(after):.3f} ms, p99 {after[int(len(after) * 0.99)]:.3f} ms,"
        f" at most {after[-1]:.2f} ms"
    )


class LimitedRig(Rig):
    """Services with a Redis, that differ in their policies."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir)
        self._name, self._policies = "", ""

    def config(self, heart: str, server: GrpcServer = GrpcServer.GRPCIO, more: str = "") -> tuple[GatewayConfig, Path]:
        _, path = super().config(self._name, server, more)
        path.write_text(path.read_text().replace("no-redis.sock", "redis.sock") + self._policies)
        return gateway_file.load(path), path

    def service(self, name: str, policies: str) -> Heart:
        self._name, self._policies = name, policies
        return replace(self.ours(GrpcServer.GRPCIO), name=name)


def through_envoy(directory: Path, seconds: float, rounds: int) -> None:
    """The same pipeline with limits and without, in turns, so that a slow minute of the machine hits both."""
    with LimitedRig(directory) as rig:
        services = [rig.service("without", OFF), rig.service("with", ON)]
        for connections in (1, 32):
            found = compare(services, connections, seconds, rounds)
            with_p50, without_p50 = (found[name]["p50_ms"] for name in ("with", "without"))
            rates = ", ".join(f"{found[name]['per_s']:.0f}/s {name}" for name in ("with", "without"))
            print(
                f"through Envoy, {connections} connections: p50 {with_p50:.2f} ms with limits, {without_p50:.2f} ms "
                f"without: {with_p50 - without_p50:.2f} ms added; {rates}",
                flush=True,
            )


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
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round through Envoy")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        running = RedisServer(Path(folder))
        try:
            through_envoy(Path(folder), options.seconds, options.rounds)
            asyncio.run(measure(running, Path(folder), options.keys))
            print(f"Redis hangs: {asyncio.run(outage(running))}")
        finally:
            running.close()
