"""What choosing endpoints costs, and what it gains.

    python tests/benchmarks/endpoints.py cost
    python tests/benchmarks/endpoints.py mix --strategy least_tokens [--unsaid]

`cost` times one choice on one thread: the order, what is taken and what is given back. `mix` sends answers of 10 and
of 2000 tokens, mixed, through a real Envoy and the real service to four real Tritons with demo_llm, which works on four
at a time and whose pace is simulated; `--unsaid`: clients don't say how long an answer may become. The same requests at
the same moments for each strategy.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[2]))

from extproc.config.balancing import Balancing
from extproc.routing.endpoints import Endpoints, Terms, choose
from extproc.routing.pressure import EndpointLoad
from tests.helpers.redis import RedisServer
from tests.helpers.services import KEY, ServedGateway, Upstreams, served
from tests.helpers.triton import RunningTriton, running

TRITONS = 4
AT_A_TIME = 4
TPOT_MS = 4
SHORT_TOKENS, LONG_TOKENS = 10, 2000
LONG_SHARE = 0.1
RATE_PER_S = 12.0
SECONDS = 70.0
SEED = 7
POLICIES = "policies: {cache: {mode: off}, limit: {mode: off}}\npolling: {interval_s: 1}\n"


def cost() -> None:
    for strategy in (Balancing.LEAST_TOKENS, Balancing.GPU_AWARE):
        for count in (2, 64, 512):
            print(f"{strategy}, {count} endpoints: {_quantiles(_decision(strategy, count, failing=False))}")
        print(f"{strategy}, 512 endpoints, one of them failing: {_quantiles(_decision(strategy, 512, failing=True))}")
        print(f"{strategy}, 512 endpoints, what is heard four times a second: {_heard_us(strategy):.0f} µs")


def _pool(strategy: Balancing, count: int) -> Endpoints:
    addresses = [f"10.0.{number // 256}.{number % 256}:8000" for number in range(count)]
    endpoints = Endpoints(Terms(strategy, dict.fromkeys(addresses, 1.0)))
    draw = random.Random(SEED)
    for address in addresses:
        endpoints.take(address, draw.randrange(100_000))
    endpoints.heard({address: draw.randrange(100_000) for address in addresses}, 3, dict(endpoints.own))
    endpoints.measured({one: EndpointLoad(0.0, 1.0, 1.0, draw.random(), draw.random(), 0.9) for one in addresses})
    return endpoints


def _decision(strategy: Balancing, count: int, *, failing: bool) -> Callable[[], None]:
    endpoints = _pool(strategy, count)
    if failing:
        endpoints.failed(next(iter(endpoints.terms.weights)), 1e9)

    def decide() -> None:
        choice = choose(endpoints, 500, 0.0)
        assert choice is not None
        choice.release()

    return decide


def _heard_us(strategy: Balancing) -> float:
    endpoints = _pool(strategy, 512)
    others = dict.fromkeys(endpoints.terms.weights, 1000)
    return statistics.median(_times_us(lambda: endpoints.heard(others, 3, endpoints.own), 500))


def _quantiles(work: Callable[[], None]) -> str:
    times = sorted(_times_us(work, 20_000))
    return f"p50 {times[len(times) // 2]:.1f} µs, p99 {times[len(times) * 99 // 100]:.1f} µs"


def _times_us(work: Callable[[], None], times: int) -> list[float]:
    took = []
    for _ in range(times):
        began_s = time.perf_counter()
        work()
        took.append((time.perf_counter() - began_s) * 1e6)
    return took


@dataclass(frozen=True)
class Arrival:
    at_s: float
    tokens: int


def arrivals() -> Iterator[Arrival]:
    """Memoryless, and the same ones each time."""
    draw, at_s = random.Random(SEED), 0.0
    while at_s < SECONDS:
        at_s += draw.expovariate(RATE_PER_S)
        yield Arrival(at_s, LONG_TOKENS if draw.random() < LONG_SHARE else SHORT_TOKENS)


class Mix:
    """One run."""

    def __init__(self, gateway: ServedGateway, *, unsaid: bool) -> None:
        self._gateway, self._unsaid = gateway, unsaid
        self.took_s: dict[int, list[float]] = {SHORT_TOKENS: [], LONG_TOKENS: []}
        self.statuses: Counter[int] = Counter()

    async def play(self, played: Sequence[Arrival]) -> None:
        url = f"http://127.0.0.1:{self._gateway.port}"
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client, asyncio.TaskGroup() as tasks:
            began_s = time.monotonic()
            for number, arrival in enumerate(played):
                await asyncio.sleep(max(0.0, began_s + arrival.at_s - time.monotonic()))
                tasks.create_task(self._one(client, number, arrival.tokens))

    async def _one(self, client: httpx.AsyncClient, number: int, tokens: int) -> None:
        content = f"{number} [[demo:tokens={tokens}]][[demo:tpot_ms={TPOT_MS}]]"
        body = {"model": "mixed", "messages": [{"role": "user", "content": content}]}
        if not self._unsaid:
            body["max_tokens"] = tokens
        began_s = time.monotonic()
        answer = await client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"})
        self.statuses[answer.status_code] += 1
        self.took_s[tokens].append(time.monotonic() - began_s)


@contextlib.contextmanager
def tritons(directory: Path) -> Iterator[list[RunningTriton]]:
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(running(["demo_llm"], directory / f"triton-{n}.log")) for n in range(TRITONS)]
        for triton in started:
            config = httpx.get(f"{triton.url}/v2/models/demo_llm/config").raise_for_status().json()
            config["parameters"]["max_running_sequences"]["string_value"] = str(AT_A_TIME)
            load_it = {"parameters": {"config": json.dumps(config)}}
            httpx.post(f"{triton.url}/v2/repository/models/demo_llm/load", json=load_it, timeout=30).raise_for_status()
        yield started


def mix(strategy: str, *, unsaid: bool) -> None:
    played = list(arrivals())
    with tempfile.TemporaryDirectory() as name, tritons(Path(name)) as servers:
        endpoints = ", ".join(f'"127.0.0.1:{server.ports.http}"' for server in servers)
        metrics = ", ".join(f'"127.0.0.1:{server.ports.metrics}"' for server in servers)
        clusters = f"{{a: {{endpoints: [{endpoints}], metrics: [{metrics}]}}}}"
        pool = f"{{dialect: triton-generate, model: demo_llm, clusters: {clusters}, balancing: {strategy}}}"
        directory = Path(name) / "gateway"
        directory.mkdir()
        with (
            contextlib.closing(RedisServer(directory)),
            served(directory, Upstreams(more={"mixed": pool}), workers=2, policies=POLICIES) as gateway,
        ):
            one = Mix(gateway, unsaid=unsaid)
            asyncio.run(one.play(played))
    print(f"{strategy}{', unsaid' if unsaid else ''}: {len(played)} requests in {SECONDS:.0f} s: {dict(one.statuses)}")
    for tokens, took_s in one.took_s.items():
        _print_line(f"{tokens} tokens", took_s)
    _print_line("all", [took for some in one.took_s.values() for took in some])


def _print_line(what: str, took_s: Sequence[float]) -> None:
    ordered = sorted(took_s)
    quantiles = " ".join(f"p{q} {ordered[len(ordered) * q // 100] * 1000:.0f}" for q in (50, 90, 99))
    print(f"  {what} ({len(ordered)}): mean {statistics.mean(ordered) * 1000:.0f} {quantiles} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "mix"])
    parser.add_argument("--strategy", default="least_tokens")
    parser.add_argument("--unsaid", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "cost":
        cost()
    else:
        mix(arguments.strategy, unsaid=arguments.unsaid)


if __name__ == "__main__":
    main()
