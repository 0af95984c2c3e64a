"""One exchange without gRPC: what of a request's cost is ours, and where in it the time goes.

Prints microseconds per exchange for a 2 KB chat answered whole and per event for a stream; `--profile` adds cProfile's
view of it.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from prometheus_client import CollectorRegistry

from extproc.clock import Clock
from extproc.edge import codec
from extproc.exchange.messages import Event, Reply, RequestBody, RequestHeaders, ResponseBody, ResponseHeaders
from extproc.journey import Journey, Runtime
from extproc.policies import pipeline
from extproc.policies.interface import Services
from extproc.routing import catalog
from extproc.stores.answers import RedisAnswers
from extproc.stores.key_cache import CachedKeys
from extproc.stores.keys import KeyHasher, KeyStore
from extproc.stores.local_share import LocalLimiter
from extproc.stores.neighbours import RedisNeighbours
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.open_exchanges import OpenExchanges
from extproc.telemetry.usage import UsageLog
from tests.benchmarks.rig import KEY, SECRET, Rig, chat_request
from tests.benchmarks.upstream import COMPLETION

EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"word "},"logprobs":null,"finish_reason":null}]}\n\n'
)


def runtime(directory: Path) -> Runtime:
    config, _ = Rig(directory).config("journey")
    hasher = KeyHasher(SECRET.encode())
    store = KeyStore(config.redis.url.get_secret_value(), hasher, 0.1)
    answers = RedisAnswers("redis://127.0.0.1:1", 0.1, 0.1, SECRET.encode(), Clock())
    services = Services(
        catalog=catalog.build(config),
        keys=CachedKeys(store, hasher, config.keys.static, Clock()),
        metrics=Metrics(CollectorRegistry()),
        usage=UsageLog(os.open(os.devnull, os.O_WRONLY), OpenExchanges(directory / "table")),
        limiter=LocalLimiter(Clock()),
        config_version="bench",
        answers=answers,
        neighbours=RedisNeighbours(answers),
    )

    def spawn(work):  # type: ignore[no-untyped-def]
        asyncio.get_running_loop().create_task(work)

    return Runtime(pipeline.build(config.policies, services), 1 << 24, spawn)


def events(stream: bool, chunks: int) -> list[Event]:
    _, _, body = chat_request(2048, stream).partition(b"\r\n\r\n")
    headers = {
        ":method": "POST", ":path": "/v1/chat/completions", ":authority": "bench", ":scheme": "http",
        "authorization": f"Bearer {KEY}", "content-type": "application/json", "content-length": str(len(body)),
        "x-request-id": "0f4d2c4e-1b7a-4c61-8a55-a1f6f6a2c001", "x-forwarded-proto": "http", "user-agent": "bench",
    }  # fmt: skip
    request: list[Event] = [RequestHeaders(headers), RequestBody(body), RequestBody(b"", True)]
    if not stream:
        json = {":status": "200", "content-type": "application/json"}
        return [*request, ResponseHeaders(json), ResponseBody(COMPLETION), ResponseBody(b"", True)]
    sse = {":status": "200", "content-type": "text/event-stream"}
    pieces: list[Event] = [ResponseBody(EVENT) for _ in range(chunks)]
    return [*request, ResponseHeaders(sse), *pieces, ResponseBody(b"data: [DONE]\n\n"), ResponseBody(b"", True)]


async def exchange(run: Runtime, given: list[Event], encode: bool) -> None:
    async def write(reply: Reply) -> None:
        if encode:
            codec.encode(reply).SerializeToString()

    journey = Journey(run, write)
    for event in given:
        await journey.receive(event)


async def measure(run: Runtime, given: list[Event], times: int, encode: bool) -> float:
    for _ in range(20):
        await exchange(run, given, encode)
    began_s = time.perf_counter()
    for _ in range(times):
        await exchange(run, given, encode)
        await asyncio.sleep(0)
    return (time.perf_counter() - began_s) / times * 1e6


async def main(profile: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        run = runtime(Path(directory))
        whole, short, long = events(False, 0), events(True, 1), events(True, 1001)
        print(f"whole answer: {await measure(run, whole, 2000, False):.0f} us without protobuf")
        print(f"whole answer: {await measure(run, whole, 2000, True):.0f} us with encoding of replies")
        per_event = (await measure(run, long, 50, False) - await measure(run, short, 200, False)) / 1000
        print(f"stream: {per_event:.1f} us per event without protobuf")
        if profile:
            profiler = cProfile.Profile()
            profiler.enable()
            await measure(run, whole, 1000, True)
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true")
    asyncio.run(main(parser.parse_args().profile))
