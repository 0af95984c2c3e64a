"""What keeping to an endpoint by the prompt's beginning gains, and what the key costs.

    python tests/benchmarks/affinity.py cost
    python tests/benchmarks/affinity.py tables
    python tests/benchmarks/affinity.py simulate TRACE [--endpoints 4 16 64] [--cache-tokens 1048576]
    python tests/benchmarks/affinity.py replay TRACE --strategy maglev [--leave] [--endpoints 4]

TRACE is Mooncake's conversation_trace.jsonl, or for `replay` also one of Azure's (.csv). `cost` times the key. `tables`
says how even Envoy's tables are and what moves when an endpoint leaves. `simulate` plays the whole trace to servers
that are simulated too. `replay` plays a part of one, faster than it was, through a real Envoy and the real service to
real Tritons with demo_llm, whose prefix cache and pace are simulated: of Mooncake's one conversation in sixteen, with
answers cut to 8 tokens, and the same simulated beside it where the strategy is known; of Azure's one request in 54, to
servers that work on four at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import tempfile
import time
import timeit
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from rs_bpe.bpe import openai as bpe

sys.path.insert(0, str(Path(__file__).parents[2]))

from extproc.config.balancing import ConsistentHash
from extproc.dialects.interface import InferenceRequest, RequestHead
from extproc.dialects.registry import resolve
from extproc.principal import ANONYMOUS
from extproc.routing.affinity import Affinity, affinity
from tests.benchmarks import affinity_simulation as simulation
from tests.benchmarks.affinity_simulation import Fleet, Key, simulate
from tests.benchmarks.affinity_trace import BLOCK_BYTES, BLOCK_TOKENS, Arrival, is_azure, load, one_in, sped_up
from tests.helpers.hash_tables import Maglev, Ring, Table, xxh64
from tests.helpers.redis import RedisServer
from tests.helpers.services import KEY, ServedGateway, Upstreams, served
from tests.helpers.triton import RunningTriton, running

HEAD = RequestHead("POST", "/v1/chat/completions", {})
SECRET = b"a secret of sixteen"
ARRIVALS_PER_ENDPOINT_S = 1.0
CACHE_TOKENS = 1 << 20
REPLAY_S = 75.0
REPLAYED_ONE_IN = 16
OUTPUT_TOKENS = 8
AZURE_ONE_IN = 54
AZURE_AT_A_TIME = 4
POLICIES = "policies: {cache: {mode: off}, limit: {mode: off}}\n"


def maker(settings: ConsistentHash) -> Affinity:
    made = affinity(settings, SECRET)
    assert made is not None
    return made


def chat(*texts: str) -> InferenceRequest:
    api = resolve(HEAD).api
    assert api is not None
    messages = [{"role": "user", "content": text} for text in texts]
    return api.parse(HEAD, json.dumps({"model": "m", "messages": messages}).encode())


def key_of(blocks: int) -> Key:
    """The gateway's own key of a request of the trace."""
    settings = ConsistentHash(blocks=blocks, block_bytes=BLOCK_BYTES)
    made = maker(settings)
    return lambda arrival: made.key(chat(arrival.prompt(blocks * BLOCK_TOKENS)), HEAD, ANONYMOUS)


# The cost.


def cost() -> None:
    made, tokenizer = maker(ConsistentHash()), bpe.cl100k_base()
    text = "The gateway decides who is calling, what it costs and where the answer comes from. " * 1600
    for name, request in {
        "2 KB, too short for a key": chat(text[:2048]),
        "8 KB": chat(text[:8192]),
        "128 KB": chat(text[: 128 << 10]),
        "128 KB in 100 messages": chat(*[text[:1310]] * 100),
    }.items():
        print(f"{name:28} {_microseconds(lambda request=request: made.key(request, HEAD, ANONYMOUS)):8.1f} µs")
    leading = text[: 2 * BLOCK_BYTES]
    print(f"{'4 KB as tokens, for one':28} {_microseconds(lambda: tokenizer.encode(leading)):8.1f} µs")


def _microseconds(call: object, rounds: int = 2000) -> float:
    return min(timeit.repeat(call, number=rounds, repeat=5)) / rounds * 1e6  # type: ignore[arg-type]


# The tables.


def tables(keys: int = 20_000) -> None:
    hashes = [xxh64(f"key {number}".encode()) for number in range(keys)]
    makers: dict[str, Callable[[dict[str, float]], Table]] = {
        "ring of 1024, Envoy's default": lambda weights: Ring(weights, 1024),
        "ring_hash": lambda weights: Ring(weights, simulation.RING_SIZE),
        "maglev": Maglev,
    }
    for count, (name, make) in itertools.product((4, 16, 64), makers.items()):
        weights = {f"10.0.0.{number}:8000": 1.0 for number in range(count)}
        gone = next(iter(weights))
        before, after = make(weights), make({endpoint: 1.0 for endpoint in weights if endpoint != gone})
        homes = [before.pick(one) for one in hashes]
        stayed = [(home, after.pick(one)) for home, one in zip(homes, hashes, strict=True) if home != gone]
        moved = sum(home != now for home, now in stayed) / len(stayed)
        shares = Counter(homes)
        least, most = (pick(shares.values()) * count / keys for pick in (min, max))
        own = shares[gone] / keys
        print(
            f"{count:3} endpoints, {name:30} its own {own:6.1%}, of the others' {moved:6.1%} move; "
            f"shares {least:.2f} to {most:.2f} of the mean"
        )


# The simulation.


def most_possible(arrivals: Sequence[Arrival]) -> float:
    """The hit rate of one endless cache of all."""
    warm, cached = set[int](), 0
    for arrival in arrivals:
        blocks = arrival.blocks[: (arrival.input_tokens - 1) // BLOCK_TOKENS]
        cached += BLOCK_TOKENS * sum(1 for _ in itertools.takewhile(warm.__contains__, blocks))
        warm.update(arrival.full_blocks)
    return cached / sum(arrival.input_tokens for arrival in arrivals)


def simulated(arrivals: list[Arrival], endpoints: Sequence[int], cache_tokens: int) -> None:
    span_s = arrivals[-1].at_s
    print(f"{len(arrivals)} requests; one endless cache of all would hit {most_possible(arrivals):.1%}")
    for count in endpoints:
        paced = sped_up(arrivals, ARRIVALS_PER_ENDPOINT_S * count * span_s / len(arrivals))
        half_s = paced[-1].at_s / 2
        print(f"\n{count} endpoints, caches of {cache_tokens} tokens\n{'':34}{simulation.HEADING}")

        def show(name: str, fleet: Fleet, blocks: int = 2, from_s: float = 0.0, played: list[Arrival] = paced) -> None:
            print(f"{name:34}{simulate(fleet, played, key_of(blocks), from_s).line()}", flush=True)

        base = Fleet(count, "round_robin", cache_tokens)
        for strategy in ("round_robin", "least_request", "ring_hash", "maglev"):
            show(strategy, replace(base, strategy=strategy))
        for blocks in (3, 4, 8):
            show(f"maglev, {blocks} blocks", replace(base, strategy="maglev"), blocks)
        for percent in (None, 110, 125, 200, 300):
            show(f"maglev, load {percent}", replace(base, strategy="maglev", max_load_percent=percent))
        for strategy in ("round_robin", "ring_hash", "maglev"):
            show(f"{strategy}, second half", replace(base, strategy=strategy), from_s=half_s)
            show(f"{strategy}, one left at half", replace(base, strategy=strategy, leaves_at_s=half_s), from_s=half_s)


# The replay.


@dataclass
class Answered:
    """One request as its client saw it."""

    at_s: float
    status: int
    ttft_s: float
    took_s: float
    tokens: int


@dataclass
class Replay:
    gateway: ServedGateway
    tritons: list[RunningTriton]
    answered: list[Answered]

    async def play(self, arrivals: Sequence[Arrival], *, leave: bool) -> tuple[float, float]:
        """Hit rates of the first and of the second half."""
        half_s = arrivals[-1].at_s / 2
        limits = httpx.Limits(max_connections=500)
        began_s = time.monotonic()
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.gateway.port}", timeout=120, limits=limits
        ) as to:
            start = self._counts()
            first = [arrival for arrival in arrivals if arrival.at_s < half_s]
            tasks = await self._send(to, first, began_s)
            middle = self._counts()
            if leave:
                self.tritons[-1].process.terminate()
            tasks += await self._send(to, arrivals[len(first) :], began_s)
            await asyncio.gather(*tasks)
        staying = self.tritons[:-1] if leave else self.tritons
        end = self._counts(staying)
        return _hit_rate(start, middle), _hit_rate(middle[: len(staying)], end)

    async def _send(
        self, to: httpx.AsyncClient, arrivals: Sequence[Arrival], began_s: float
    ) -> list[asyncio.Task[None]]:
        tasks = []
        for arrival in arrivals:
            await asyncio.sleep(max(0.0, began_s + arrival.at_s - time.monotonic()))
            tasks.append(asyncio.create_task(self._one(to, arrival)))
        return tasks

    async def _one(self, to: httpx.AsyncClient, arrival: Arrival) -> None:
        body = {
            "model": "replayed",
            "messages": [{"role": "user", "content": f"{arrival.prompt()} [[demo:tokens={arrival.output_tokens}]]"}],
            "max_tokens": arrival.output_tokens,
            "stream": True,
        }
        began_s = time.monotonic()
        headers = {"authorization": f"Bearer {KEY}"}
        ttft_s: float | None = None
        try:
            async with to.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
                async for _ in response.aiter_bytes():
                    ttft_s = ttft_s or time.monotonic() - began_s
            status = response.status_code
        except httpx.RemoteProtocolError:  # its server was stopped in the middle
            status = 0
        took_s = time.monotonic() - began_s
        self.answered.append(Answered(arrival.at_s, status, ttft_s or 0.0, took_s, arrival.output_tokens))

    def _counts(self, of: Sequence[RunningTriton] | None = None) -> list[tuple[float, float]]:
        return [
            (triton.metric("demo_llm_prompt_tokens"), triton.metric("demo_llm_prefix_cache_hit_tokens"))
            for triton in of or self.tritons
        ]


def _hit_rate(before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]) -> float:
    prompt = sum(late[0] - early[0] for early, late in zip(before, after, strict=True))
    return sum(late[1] - early[1] for early, late in zip(before, after, strict=True)) / prompt


@contextlib.contextmanager
def tritons(directory: Path, count: int, parameters: Mapping[str, int]) -> Iterator[list[RunningTriton]]:
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(running(["demo_llm"], directory / f"triton-{n}.log")) for n in range(count)]
        for triton in started:
            config = httpx.get(f"{triton.url}/v2/models/demo_llm/config").raise_for_status().json()
            for parameter, value in parameters.items():
                config["parameters"][parameter]["string_value"] = str(value)
            load_it = {"parameters": {"config": json.dumps(config)}}
            httpx.post(f"{triton.url}/v2/repository/models/demo_llm/load", json=load_it, timeout=30).raise_for_status()
        yield started


def _pool(strategy: str, servers: Sequence[RunningTriton]) -> str:
    hashed = f"balancing: consistent_hash, consistent_hash: {{table: {strategy}}}"
    balancing = hashed if strategy in ("maglev", "ring_hash") else f"balancing: {strategy}"
    endpoints = ", ".join(f'"127.0.0.1:{server.ports.http}"' for server in servers)
    metrics = ", ".join(f'"127.0.0.1:{server.ports.metrics}"' for server in servers)
    clusters = f"clusters: {{all: {{endpoints: [{endpoints}], metrics: [{metrics}]}}}}"
    return f"{{dialect: triton-generate, model: demo_llm, {clusters}, health: {{interval_s: 0.5}}, {balancing}}}"


@dataclass(frozen=True)
class Played:
    """What is sent, how fast, and what the servers' simulation is told; whether ours knows such servers, too."""

    arrivals: list[Arrival]
    speed: float
    parameters: Mapping[str, int]
    is_simulated: bool


def slice_of(trace: Path) -> Played:
    """A part of a trace that two cores can play in REPLAY_S."""
    arrivals, parameters = list(load(trace)), {"kv_cache_blocks": CACHE_TOKENS // 16}
    if is_azure(trace):
        chosen = arrivals[::AZURE_ONE_IN]
        parameters["max_running_sequences"] = AZURE_AT_A_TIME
    else:
        chosen = [replace(arrival, output_tokens=OUTPUT_TOKENS) for arrival in one_in(arrivals, REPLAYED_ONE_IN)]
    speed = chosen[-1].at_s / REPLAY_S
    return Played(sped_up(chosen, speed), speed, parameters, is_simulated=not is_azure(trace))


def replayed(played: Played, strategy: str, endpoints: int, *, leave: bool) -> None:
    half_s = played.arrivals[-1].at_s / 2
    with tempfile.TemporaryDirectory() as name, tritons(Path(name), endpoints, played.parameters) as servers:
        directory = Path(name) / "gateway"
        directory.mkdir()
        upstreams = Upstreams(more={"replayed": _pool(strategy, servers)})
        with (
            contextlib.closing(RedisServer(directory)),
            served(directory, upstreams, policies=POLICIES) as gateway,
        ):
            replay = Replay(gateway, servers, [])
            rates = asyncio.run(replay.play(played.arrivals, leave=leave))
    answered = replay.answered
    failed = Counter((one.status, one.at_s >= half_s) for one in answered if one.status != httpx.codes.OK)
    print(
        f"{strategy}{', one leaves at half' if leave else ''}: {len(answered)} requests in {REPLAY_S:.0f} s, "
        f"{played.speed:.0f} times as fast as they were, {endpoints} Tritons; failed: {dict(failed)}"
    )
    ended_s = max(one.at_s + one.took_s for one in answered)
    print(f"  {sum(one.tokens for one in answered) / ended_s:.0f} tokens/s, all done after {ended_s:.1f} s")
    for half, rate in enumerate(rates):
        some = [one for one in answered if (one.at_s >= half_s) == bool(half)]
        print(f"  half {half + 1}: hits {rate:.1%}, TTFT {_times(one.ttft_s for one in some)}")
        print(f"  {'':7}whole answers {_times(one.took_s for one in some)}")
    if played.is_simulated and strategy in simulation.STRATEGIES:
        fleet = Fleet(endpoints, strategy, CACHE_TOKENS, leaves_at_s=half_s if leave else None)
        simulated_half = simulate(fleet, played.arrivals, key_of(2), half_s)
        print(f"  half 2 simulated:{simulation.HEADING}\n{'':19}{simulated_half.line()}")


def _times(of: Iterable[float]) -> str:
    ordered = sorted(of)
    quantiles = " ".join(f"p{q} {ordered[len(ordered) * q // 100] * 1000:.0f}" for q in (50, 90, 99))
    return f"mean {sum(ordered) / len(ordered) * 1000:.0f} {quantiles} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "tables", "simulate", "replay"])
    parser.add_argument("trace", type=Path, nargs="?")
    parser.add_argument("--endpoints", type=int, nargs="+", default=[4])
    parser.add_argument("--cache-tokens", type=int, default=CACHE_TOKENS)
    parser.add_argument("--strategy", default="maglev")
    parser.add_argument("--leave", action="store_true")
    arguments = parser.parse_args()
    if arguments.what in ("cost", "tables"):
        cost() if arguments.what == "cost" else tables()
        return
    if arguments.trace is None:
        parser.error("the trace is missing")
    if arguments.what == "simulate":
        simulated(list(load(arguments.trace)), arguments.endpoints, arguments.cache_tokens)
    else:
        replayed(slice_of(arguments.trace), arguments.strategy, arguments.endpoints[0], leave=arguments.leave)


if __name__ == "__main__":
    main()
