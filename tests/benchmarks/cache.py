"""The caches measured: hits and misses through Envoy, beside bare Envoy and no-op processors; and the store.

`python tests/benchmarks/cache.py` prints Markdown tables for docs/caching.md. One client that sends one request after
the other; the rounds of all are interleaved, because machines are noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import redis

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from extproc.caching import EntryName, Quota
from extproc.clock import Clock
from extproc.config import load
from extproc.config.model import GrpcServer
from extproc.dialects.answer import Delta, Done
from extproc.dialects.interface import TokenTotals
from extproc.policies import cache_entry, pipeline
from extproc.policies.cache_entry import Collected
from extproc.stores.answers import RedisAnswers
from tests.benchmarks.rig import SECRET, Heart, Rig, chat_request, wait_for
from tests.helpers.redis import RedisServer

PROMPT_BYTES = 2048
QUOTA = Quota(10**9, 10**12)
TEXT = "the gateway asks a model once and knows the answer for all who ask the same question again later"


ASKED, PARAPHRASED = "How do I disable two-factor authentication?", "How can I turn off two-factor authentication?"


def cached(rig: Rig, server: RedisServer, name: str, policies: str = "", grpc: GrpcServer = GrpcServer.GRPCIO) -> Heart:
    """`extproc serve` with these policies, and a Redis."""
    _, path = rig.config(name, grpc)
    text = path.read_text().replace(f"unix://{rig.run_dir}/no-redis.sock", server.url)
    path.write_text(f"{text}policies: {{{policies}}}\n")
    config = load(path, pipeline.SETTINGS)
    supervisor = rig.spawn(sys.executable, "-m", "extproc", "serve", "--config", path)
    wait_for(config.service.admin.port, "/readyz")
    worker = next(child for child in supervisor.children() if "extproc.app" in child.cmdline())
    rig.envoy(config)
    return Heart(path.stem, config.gateway.listen.port, worker, config.service.admin.port)


def bodies(kind: str) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Requests of one kind, for ever: `miss` and `unlike` always another, the others always the same.

    `semantic` asks in other words what `asked` asked, and `unlike` what nobody did, both after a long system prompt.
    """
    whole = chat_request(PROMPT_BYTES, stream=False)
    head, _, body = whole.partition(b"\r\n\r\n")
    lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    headers = {name: value for name, value in lines.items() if name not in ("host", "content-length")}
    request = json.loads(body) | {"temperature": 0}
    number = random.randrange(1 << 40)
    while True:
        number += 1
        request |= {"user": str(number), "seed": number if kind == "miss" else 1}
        if kind in ("asked", "semantic", "unlike"):
            question = {"asked": ASKED, "semantic": PARAPHRASED, "unlike": f"What is {number} plus 7?"}[kind]
            system = {"role": "system", "content": ("Be brief. " * PROMPT_BYTES)[:PROMPT_BYTES]}
            request["messages"] = [system, {"role": "user", "content": question}]
        yield json.dumps(request, separators=(",", ":")).encode(), headers


def sequential(port: int, kind: str, count: int) -> tuple[list[float], set[str]]:
    """Seconds of each request, and what the cache said."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    seconds, said = [], set()
    for (body, headers), _ in zip(bodies(kind), range(count), strict=False):
        began_s = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        answer.read()
        seconds.append(time.perf_counter() - began_s)
        assert answer.status == 200, answer.status
        said.add(answer.headers.get("x-extproc-cache", "-"))
    connection.close()
    return seconds, said


def _prime(server: RedisServer, heart: Heart) -> None:
    """Until the paraphrase finds the question: an encoder that has only just begun may refuse what comes too soon."""
    for _ in range(20):
        server.flush()
        sequential(heart.port, "asked", 1)
        time.sleep(0.5)
        if sequential(heart.port, "semantic", 1)[1] == {"semantic"}:
            return
    raise RuntimeError("the semantic cache finds nothing")


def report_latency(rig: Rig, server: RedisServer, count: int, rounds: int) -> None:
    exact, semantic = "cache: {mode: enforce}", "cache: {mode: enforce}, semantic_cache: {mode: enforce, deadline_s: 5}"
    limited = "limit: {keys: {bench: {requests_per_minute: 100000000}}}, " + exact
    with_cache, with_both = cached(rig, server, "exact", exact), cached(rig, server, "semantic", semantic)
    hearts = {
        "bare Envoy": (rig.bare(), "hit"),
        "no-op, gRPC's server": (rig.noop(GrpcServer.GRPCIO), "hit"),
        "no-op, our server": (rig.noop(GrpcServer.ASYNCIO), "hit"),
        "extproc, cache off": (cached(rig, server, "off"), "hit"),
        "extproc, miss": (with_cache, "miss"),
        "extproc, hit": (with_cache, "hit"),
        "extproc with a limit, hit": (cached(rig, server, "limited", limited), "hit"),
        "extproc on our server, cache off": (cached(rig, server, "ours-off", grpc=GrpcServer.ASYNCIO), "hit"),
        "extproc on our server, hit": (cached(rig, server, "ours-exact", exact, GrpcServer.ASYNCIO), "hit"),
        "extproc with both caches, miss": (with_both, "unlike"),
        "extproc with both caches, semantic hit": (with_both, "semantic"),
    }
    _prime(server, with_both)
    for heart, kind in hearts.values():
        sequential(heart.port, kind, 200)
    time.sleep(0.2)
    medians: dict[str, list[float]] = {name: [] for name in hearts}
    tails: dict[str, list[float]] = {name: [] for name in hearts}
    for _ in range(rounds):
        for name, (heart, kind) in hearts.items():
            seconds, said = sequential(heart.port, kind, count)
            wanted = "miss" if kind == "unlike" else kind
            assert "extproc" not in name or name.endswith("off") or said == {wanted}, said
            medians[name].append(statistics.median(seconds) * 1e3)
            tails[name].append(statistics.quantiles(seconds, n=100)[98] * 1e3)
    print(f"\n## A {PROMPT_BYTES} byte prompt, one client, one request after the other\n")
    print("| | p50 ms | p99 ms | added to bare Envoy, ms |\n|---|---|---|---|")
    p50 = {name: statistics.median(runs) for name, runs in medians.items()}
    for name, ms in p50.items():
        print(f"| {name} | {ms:.2f} | {statistics.median(tails[name]):.2f} | {ms - p50['bare Envoy']:.2f} |")
    added = {name: ms - p50["bare Envoy"] for name, ms in p50.items()}
    for noop in ("no-op, gRPC's server", "no-op, our server"):
        for hit in ("extproc, hit", "extproc on our server, hit"):
            print(f"\n{hit}: x {p50[hit] / p50[noop]:.2f} of the {noop}, and adds x {added[hit] / added[noop]:.2f}.")


def answer_of(words: int) -> bytes:
    """A streamed answer as it is kept."""
    collected = Collected(1 << 20)
    source = random.Random(words)
    collected.add([Delta(text=source.choice(TEXT.split()) + " ") for _ in range(words)])
    collected.add([Delta(finish_reason="stop"), Done()])
    return cache_entry.encode(collected.events, TokenTotals(100, words))


async def report_store(server: RedisServer, most: int) -> None:
    """Entries of a streamed answer of 200 words, which is some 5 KB of events."""
    body = answer_of(200)
    store = RedisAnswers(server.url, 5.0, 5.0, SECRET.encode(), Clock())
    client = redis.Redis.from_url(server.url)
    client.flushall()
    print(f"\n## Kept answers of 200 streamed words ({len(body)} bytes before compression)\n")
    print("| entries | Redis memory per entry, bytes | lookup p50 µs | p99 µs | p50 µs where there is none |")
    print("|---|---|---|---|---|")
    empty, kept = int(client.info("memory")["used_memory"]), 0
    for entries in (size for size in (1_000, 10_000, 100_000) if size <= most):
        while kept < entries:
            names = [named(store, kept + at) for at in range(250)]
            await asyncio.gather(*(store.put(name, body, 3600, QUOTA) for name in names))
            kept += len(names)
        per_entry = (int(client.info("memory")["used_memory"]) - empty) / kept
        hits = [await timed(store, random.randrange(kept)) for _ in range(2000)]
        misses = [await timed(store, kept + at + 1) for at in range(500)]
        cells = (statistics.median(hits), statistics.quantiles(hits, n=100)[98], statistics.median(misses))
        print(f"| {entries} | {per_entry:.0f} | {' | '.join(f'{one * 1e6:.0f}' for one in cells)} |", flush=True)
    client.close()
    await store.close()


def named(store: RedisAnswers, number: int) -> EntryName:
    return EntryName("team:bench", "model", "", store.digest(b"%d" % number))


async def timed(store: RedisAnswers, number: int) -> float:
    name = named(store, number)
    began_s = time.perf_counter()
    await store.get(name)
    return time.perf_counter() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="requests of each kind in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--entries", type=int, default=100_000, help="the most to keep; 0: only through Envoy")
    options = parser.parse_args()
    print(f"{psutil.cpu_count()} cores, Python {sys.version.split()[0]}, one worker, Envoy with one thread")
    with tempfile.TemporaryDirectory(prefix="extproc-bench-") as directory:
        server = RedisServer(Path(directory))
        try:
            with Rig(Path(directory)) as rig:
                report_latency(rig, server, options.count, options.rounds)
            if options.entries:
                asyncio.run(report_store(server, options.entries))
        finally:
            server.close()


if __name__ == "__main__":
    main()
