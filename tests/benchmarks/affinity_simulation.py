"""A fleet of demo_llm servers in simulated time, for more endpoints than run here: the gateway's own keys, Envoy's
tables (tests/helpers/hash_tables.py), and of the server what docs/triton.md says: prefix cache, queue, time to the
first token.

Not simulated: the network, CPUs, and what of an answer the next turn finds in the cache.
"""

import heapq
import itertools
import math
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.affinity_trace import BLOCK_TOKENS, Arrival
from tests.helpers.hash_tables import Bounded, Maglev, Ring, xxh64

STRATEGIES = ("round_robin", "least_request", "maglev", "ring_hash")
RING_SIZE = 32_768
_MOST_RUNNING = 32
_FIRST_TOKEN_S = 0.03
_UNCACHED_TOKEN_S = 0.0001
_NEXT_TOKEN_S = 0.01

Key = Callable[[Arrival], str | None]


@dataclass(frozen=True)
class Fleet:
    """`strategy`: round_robin, least_request, maglev, ring_hash. `leaves_at_s`: then the last endpoint is gone, with
    its cache, for what comes after."""

    endpoints: int
    strategy: str
    cache_tokens: int
    max_load_percent: int | None = 150
    leaves_at_s: float | None = None


@dataclass
class Outcome:
    prompt_tokens: int = 0
    cached_tokens: int = 0
    ttft_s: list[float] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)

    @property
    def hit_rate(self) -> float:
        return self.cached_tokens / max(1, self.prompt_tokens)

    def ttft_ms(self, quantile: float) -> float:
        return sorted(self.ttft_s)[int(len(self.ttft_s) * quantile)] * 1000

    def line(self) -> str:
        mean_ms = sum(self.ttft_s) / len(self.ttft_s) * 1000
        most = max(self.served.values()) * len(self.served) / self.served.total()
        return (
            f"{self.hit_rate:8.1%} {mean_ms:10.0f} {self.ttft_ms(0.5):8.0f} {self.ttft_ms(0.9):8.0f} "
            f"{self.ttft_ms(0.99):8.0f} {most:9.2f}"
        )


HEADING = f"{'hits':>8} {'TTFT mean':>10} {'p50':>8} {'p90':>8} {'p99 ms':>8} {'max/mean':>9}"


class _Server:
    def __init__(self, cache_tokens: int) -> None:
        self._cache_tokens = cache_tokens
        self._warm: OrderedDict[int, None] = OrderedDict()
        self._held = 0
        self._running = 0
        self.queue: deque[tuple[Arrival, float]] = deque()
        self.active = 0

    def next_admitted(self) -> tuple[Arrival, float] | None:
        if not self.queue or self._running == _MOST_RUNNING:
            return None
        size = self.queue[0][0].input_tokens + self.queue[0][0].output_tokens
        if self._held and self._held + size > self._cache_tokens:
            return None
        self._running += 1
        self._held += size
        return self.queue.popleft()

    def left(self, arrival: Arrival) -> None:
        self._running -= 1
        self._held -= arrival.input_tokens + arrival.output_tokens
        self.active -= 1

    def cached_tokens(self, arrival: Arrival) -> int:
        warm = 0
        for block in arrival.blocks[: (arrival.input_tokens - 1) // BLOCK_TOKENS]:
            if block not in self._warm:
                break
            self._warm.move_to_end(block)
            warm += 1
        return warm * BLOCK_TOKENS

    def remember(self, arrival: Arrival) -> None:
        for block in reversed(arrival.full_blocks):
            self._warm[block] = None
            self._warm.move_to_end(block)
        while len(self._warm) > self._cache_tokens // BLOCK_TOKENS:
            self._warm.popitem(last=False)


def _chooser(fleet: Fleet, servers: Mapping[str, _Server], key: Key) -> Callable[[Arrival], str]:
    names, chance = list(servers), random.Random(1)
    if fleet.strategy == "round_robin":
        turns = itertools.cycle(names)
        return lambda _: next(turns)
    if fleet.strategy == "least_request":
        return lambda _: min(chance.choices(names, k=2), key=lambda name: servers[name].active)
    weights = dict.fromkeys(names, 1.0)
    table = Maglev(weights) if fleet.strategy == "maglev" else Ring(weights, RING_SIZE)
    if fleet.max_load_percent is not None:
        bounded = Bounded(table, weights, fleet.max_load_percent, lambda name: servers[name].active)
        return lambda arrival: bounded.pick(_hash(key(arrival), chance))
    return lambda arrival: table.pick(_hash(key(arrival), chance))


def _hash(key: str | None, chance: random.Random) -> int:
    return chance.getrandbits(64) if key is None else xxh64(key.encode())


def simulate(fleet: Fleet, arrivals: Sequence[Arrival], key: Key, counted_from_s: float = 0.0) -> Outcome:
    """`counted_from_s`: what comes earlier warms the caches and is not in the outcome."""
    servers = {f"10.0.0.{number}:8000": _Server(fleet.cache_tokens) for number in range(fleet.endpoints)}
    choose = _chooser(fleet, servers, key)
    leaves_at_s = math.inf if fleet.leaves_at_s is None else fleet.leaves_at_s
    outcome, order = Outcome(), itertools.count()
    events: list[tuple[float, int, str, Arrival, str]] = []

    def at(time_s: float, what: str, arrival: Arrival, name: str = "") -> None:
        heapq.heappush(events, (time_s, next(order), what, arrival, name))

    def admit(name: str, now_s: float) -> None:
        while (admitted := servers[name].next_admitted()) is not None:
            arrival, came_s = admitted
            cached = servers[name].cached_tokens(arrival)
            began_s = now_s + _FIRST_TOKEN_S + _UNCACHED_TOKEN_S * (arrival.input_tokens - cached)
            at(began_s, "prefilled", arrival, name)
            at(began_s + _NEXT_TOKEN_S * (arrival.output_tokens - 1), "done", arrival, name)
            if came_s >= counted_from_s:
                outcome.prompt_tokens += arrival.input_tokens
                outcome.cached_tokens += cached
                outcome.ttft_s.append(began_s - came_s)
                outcome.served[name] += 1

    for arrival in arrivals:
        at(arrival.at_s, "arrives", arrival)
    while events:
        now_s, _, what, arrival, name = heapq.heappop(events)
        if what == "arrives":
            if now_s >= leaves_at_s:
                leaves_at_s = math.inf
                choose = _chooser(fleet, dict(list(servers.items())[:-1]), key)
            name = choose(arrival)
            servers[name].active += 1
            servers[name].queue.append((arrival, now_s))
        elif what == "prefilled":
            servers[name].remember(arrival)
            continue
        else:
            servers[name].left(arrival)
        admit(name, now_s)
    return outcome
