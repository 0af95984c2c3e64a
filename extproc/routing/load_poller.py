"""Asks the model servers how they are, and says what follows: each pool's pressure and level.

Runs in the supervisor, once for all its workers. Owns the polling: every server in every interval, one time however
many pools it serves, and what it said is forgotten when it is stale. Must not know: what a level does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp
from msgspec import Struct
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from extproc.config.address import TcpAddress
from extproc.config.model import GatewayConfig
from extproc.config.pools import Pool
from extproc.routing import triton_metrics
from extproc.routing.load_board import PoolLoad, publish
from extproc.routing.pressure import EndpointLoad, Ladder, Levels, mean_pressure
from extproc.routing.triton_metrics import ServerLoad

_MOST_AT_ONCE = 32
_ENDPOINT_FACTS = {
    "queued": "Requests that wait in a server.",
    "running": "Requests that a server works on.",
    "kv_cache": "Share of a server's KV cache in use, 0 to 1.",
    "gpu": "Utilisation of a server's GPUs, 0 to 1.",
    "gpu_memory": "Share of a server's GPU memory in use, 0 to 1.",
}
_log = logging.getLogger(__name__)

Factors = Mapping[str, tuple[float, ...]]
"""By tier: what is left of its limits at each level, from `CALM` on."""


class _Said(Struct, frozen=True):
    """By a server, at `at_s`."""

    at_s: float
    load: ServerLoad


class Watched(Struct, frozen=True):
    """What to poll, and what to make of it."""

    config: GatewayConfig
    ladder: Ladder = Ladder()
    factors: Factors = {}

    @property
    def pools(self) -> Mapping[str, Pool]:
        """Those of which anything can be known."""
        return {name: pool for name, pool in self.config.pools.items() if pool.is_measured}

    @property
    def servers(self) -> frozenset[TcpAddress]:
        """Where they show their metrics."""
        clusters = [cluster for pool in self.pools.values() for cluster in pool.clusters.values()]
        return frozenset(address for cluster in clusters for address in cluster.metrics)


class LoadPoller(Collector):
    """Polls until it is cancelled. Collected by Prometheus's client, it says what it found."""

    def __init__(self, board: Path, watched: Watched) -> None:
        self._board = board
        self._watched = watched
        self._said: dict[TcpAddress, _Said] = {}
        self._silent: set[TcpAddress] = set()
        self._levels: dict[str, Levels] = {}
        self._pools: Mapping[str, PoolLoad] = {}
        self.change(watched)

    def change(self, watched: Watched) -> None:
        """From now on watch this. Pools that stay keep their level."""
        before, self._watched = self._levels, watched
        self._levels = {
            name: Levels(watched.ladder, before[name].level if name in before else 0) for name in watched.pools
        }
        self._said = {address: said for address, said in self._said.items() if address in watched.servers}
        self._silent &= watched.servers

    async def run(self) -> None:
        """Ask every server, conclude, sleep; for ever."""
        connector = aiohttp.TCPConnector(limit=_MOST_AT_ONCE)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            while True:
                began_s = time.monotonic()
                interval_s = self._watched.config.polling.interval_s
                try:
                    await asyncio.gather(*(self._ask(session, server, interval_s) for server in self._watched.servers))
                    self._conclude(time.monotonic())
                except Exception:  # a bug of ours: what was known holds until it is stale, and polling goes on
                    _log.exception("the model servers could not be asked")
                await asyncio.sleep(max(0.0, interval_s - (time.monotonic() - began_s)))

    def collect(self) -> Iterator[Metric]:
        pressure = GaugeMetricFamily("extproc_pool_pressure", "0 to 1; absent while it is not known.", labels=["pool"])
        level = GaugeMetricFamily("extproc_pool_level", "Level of pressure that holds; 0 is none.", labels=["pool"])
        factor = GaugeMetricFamily(
            "extproc_limit_factor", "What is left of a tier's limits for requests to a pool.", labels=["pool", "tier"]
        )
        for name, pool in self._pools.items():
            if pool.pressure is not None:
                pressure.add_metric([name], pool.pressure)
            level.add_metric([name], pool.level)
            for tier, factors in self._watched.factors.items():
                factor.add_metric([name, tier], factors[min(pool.level, len(factors) - 1)])
        yield from (pressure, level, factor)
        yield from self._endpoint_gauges()

    def _endpoint_gauges(self) -> Iterator[Metric]:
        """What each server says of itself; what it does not say is absent."""
        for fact, text in _ENDPOINT_FACTS.items():
            gauge = GaugeMetricFamily(f"extproc_endpoint_{fact}", text, labels=["pool", "endpoint"])
            for name, pool in self._pools.items():
                for endpoint, load in pool.endpoints.items():
                    value = getattr(load, fact)
                    if value is not None:
                        gauge.add_metric([name, endpoint], value)
            yield gauge

    async def _ask(self, session: aiohttp.ClientSession, server: TcpAddress, timeout_s: float) -> None:
        try:
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            async with session.get(f"http://{server}/metrics", timeout=timeout, allow_redirects=False) as answer:
                page = await _page(answer) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._note(server, repr(error))
            return
        if page is None:
            self._note(server, f"status {answer.status}, or a page too large")
            return
        self._said[server] = _Said(time.monotonic(), triton_metrics.parse(page))
        self._note(server, None)

    def _note(self, server: TcpAddress, trouble: str | None) -> None:
        """One log line when a server's metrics are lost and one when they are back."""
        if trouble is None:
            if server in self._silent:
                self._silent.discard(server)
                _log.warning("a server's metrics are back", extra={"server": str(server)})
        elif server not in self._silent:
            self._silent.add(server)
            _log.warning("a server's metrics can't be read", extra={"server": str(server), "error": trouble})

    def _conclude(self, now_s: float) -> None:
        """What holds for each pool from now on, for everybody to see."""
        self._pools = {name: self._pool(name, pool, now_s) for name, pool in self._watched.pools.items()}
        try:
            publish(self._board, self._pools)
        except OSError:
            _log.exception("the workers can't be told how the servers are")

    def _pool(self, name: str, pool: Pool, now_s: float) -> PoolLoad:
        endpoints: dict[str, EndpointLoad] = {}
        weighted = []
        for cluster in pool.clusters.values():
            for endpoint, server in zip(cluster.endpoints, cluster.metrics, strict=False):
                load = self._endpoint(server, pool.model, now_s)
                if load is not None:
                    endpoints[str(endpoint)] = load
                    pressure = load.pressure(pool.pressure_from, pool.full_queue)
                    weighted.append((cluster.weight / len(cluster.endpoints), pressure))
        mean = mean_pressure(weighted)
        levels = self._levels[name]
        was = levels.level
        level = levels.update(mean, now_s)
        if level != was:
            facts = {"pool": name, "was": was, "now": level, "pressure": mean}
            _log.warning("the pressure on a pool has another level", extra=facts)
        return PoolLoad(mean, level, endpoints)

    def _endpoint(self, server: TcpAddress, model: str, now_s: float) -> EndpointLoad | None:
        said = self._said.get(server)
        if said is None or now_s - said.at_s > self._watched.config.polling.stale_after_s:
            return None
        return triton_metrics.load_of(said.load, model, said.at_s)


async def _page(answer: aiohttp.ClientResponse) -> str | None:
    """The whole page; None if it is too large."""
    page = bytearray()
    async for part in answer.content.iter_any():
        page += part
        if len(page) > triton_metrics.LIMIT_BYTES:
            return None
    return page.decode("utf-8", "replace")
