"""What finding an answer costs: the guard, the verifier, lookups in Redis by size, memory.

    python tests/benchmarks/semantic_speed.py [--entries 1000 10000 100000] [--identities 10000] [--wait]

Random unit vectors; a Redis of its own. `--wait` asks for Enter between filling and looking: a set of 100,000 takes
minutes to fill, which need not be quiet ones.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable

import httpx
import numpy as np
import onnxruntime

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from extproc.caching import EntryName, Quota
from extproc.clock import Clock
from extproc.detection.near_misses import compared, refusal
from extproc.detection.near_misses.features import features
from extproc.inference.verifier import files
from extproc.inference.verifier.local import judge_all
from extproc.inference.verifier.tokens import PairTokenizer
from extproc.stores.answers import RedisAnswers
from extproc.stores.neighbours import RedisNeighbours
from tests.helpers.cached import cached, choice, whole
from tests.helpers.redis import RedisServer
from tests.helpers.scripted_upstream import answers
from tests.helpers.semantic import pairs, verifier_folder

QUOTA = Quota(10**9, 10**12)
WIDTH = 384
LOOKUPS = 300
REQUESTS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--identities", type=int, default=10_000)
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("--store-only", action="store_true", help="neither the guard, the verifier nor Envoy")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not options.store_only:
            _guard()
            _verifier()
            _through_envoy(pathlib.Path(folder))
        server = RedisServer(pathlib.Path(folder))
        try:
            asyncio.run(_redis(server, options.entries, options.identities, options.wait))
        finally:
            server.close()


def _through_envoy(folder: pathlib.Path) -> None:
    """One connection, one request after the other; the upstream answers at once, from Python."""
    asked, near = "How do I disable two-factor authentication?", "How can I turn off two-factor authentication?"
    policies = "cache: {mode: enforce}\nsemantic_cache: {mode: enforce}\n"
    with cached(folder / "gateway", policies) as gateway:
        gateway.upstream.script = answers(200, whole(choice("Settings, Security.")))
        headers = {"authorization": "Bearer ann"}
        with httpx.Client(base_url=gateway.gateway.base_url, headers=headers, timeout=30) as client:

            def ask(question: str, wanted: str) -> float:
                body = {"model": "talker", "temperature": 0, "messages": [{"role": "user", "content": question}]}
                began = time.perf_counter()
                answer = client.post("/chat/completions", json=body)
                took = time.perf_counter() - began
                assert answer.headers["x-extproc-cache"] == wanted, answer.headers
                return took

            ask(asked, "miss")
            gateway.settled()
            for title, question, wanted in (("exact hit", asked, "hit"), ("semantic hit", near, "semantic")):
                print(f"through Envoy, {title}: {_us([ask(question, wanted) for _ in range(REQUESTS)])}")
            misses = [ask(f"What is {number} plus {number + 7}?", "miss") for number in range(100, 100 + REQUESTS)]
            print(f"through Envoy, miss (upstream at once): {_us(misses)}")


def _guard() -> None:
    found = pairs()
    asked = [features(pair.one) for pair in found]
    whole, one = [], []
    for _ in range(5):
        for pair, mine in zip(found, asked, strict=True):
            began = time.perf_counter()
            refusal(pair.one, pair.other)
            whole.append(time.perf_counter() - began)
            began = time.perf_counter()
            compared(mine, features(pair.other))
            one.append(time.perf_counter() - began)
    print(f"guard: {_us(whole)} a pair; {_us(one)} for one more candidate")


def _us(times: list[float]) -> str:
    return f"p50 {1e6 * statistics.median(times):.0f} us, p99 {1e6 * sorted(times)[int(0.99 * len(times))]:.0f} us"


def _verifier() -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(verifier_folder() / files.MODEL), options)
    tokenizer = PairTokenizer(verifier_folder() / files.TOKENIZER)
    times = []
    for pair in pairs()[:150]:
        began = time.perf_counter()
        judge_all(session, tokenizer, [(pair.one, pair.other)])
        times.append(time.perf_counter() - began)
    print(f"verifier, one thread: {_us(times)} a pair")


async def _redis(server: RedisServer, sizes: list[int], identities: int, wait: bool) -> None:
    store = RedisAnswers(server.url, 30.0, 30.0, b"benchmark", Clock())
    index = RedisNeighbours(store)
    rng = np.random.default_rng(1)
    for size in sizes:
        server.flush()
        before = _used_bytes(server)
        filled_s = await _fill(store, index, rng, [("one", size)])
        per_entry = (_used_bytes(server) - before) / size
        if wait:
            await asyncio.to_thread(input, f"{size} entries are in; Enter: ")
        await _look(index, rng, f"{size} entries of one identity", lambda: "one")
        print(f"    {per_entry:.0f} bytes an entry; filled in {filled_s:.0f} s")
    server.flush()
    before = _used_bytes(server)
    await _fill(store, index, rng, [(f"identity-{at}", 1) for at in range(identities)])
    per_entry = (_used_bytes(server) - before) / identities
    if wait:
        await asyncio.to_thread(input, f"{identities} identities are in; Enter: ")
    await _look(index, rng, f"{identities} identities", lambda: f"identity-{rng.integers(identities)}")
    print(f"    {per_entry:.0f} bytes an identity with one entry")
    await store.close()


async def _fill(
    store: RedisAnswers, index: RedisNeighbours, rng: np.random.Generator, wanted: list[tuple[str, int]]
) -> float:
    began = time.perf_counter()
    work: list[Awaitable[None]] = []
    for identity, count in wanted:
        for at in range(count):
            work.append(_keep(store, index, f"{identity}-{at}", identity, _vector(rng)))
            if len(work) == 256:
                await asyncio.gather(*work)
                work.clear()
    await asyncio.gather(*work)
    return time.perf_counter() - began


async def _keep(store: RedisAnswers, index: RedisNeighbours, digest: str, identity: str, vector: bytes) -> None:
    name = EntryName("team:bench", "model", "", store.digest(digest.encode()))
    await store.put(name, b"an answer", 3600.0, QUOTA)
    await index.add(name, identity, vector, "What is the question of this entry, of some fifty letters?", QUOTA)


async def _look(index: RedisNeighbours, rng: np.random.Generator, title: str, identity: Callable[[], str]) -> None:
    like = EntryName("team:bench", "model", "", "")
    times = []
    for _ in range(LOOKUPS):
        vector = _vector(rng)
        began = time.perf_counter()
        await index.near(like, identity(), vector, 3, 0.0, 0.9)
        times.append(time.perf_counter() - began)
    print(f"{title}: {_us(times)} a lookup of 3")


def _vector(rng: np.random.Generator) -> bytes:
    vector = rng.standard_normal(WIDTH)
    return bytes((vector / np.linalg.norm(vector)).astype("<f4").tobytes())


def _used_bytes(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("memory")["used_memory"])


if __name__ == "__main__":
    main()
