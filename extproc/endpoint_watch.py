"""What a worker knows of endpoints, kept up to date: what others have pending, what servers say, who is unhealthy.

Owns the one task beside the requests that does so, so that a choice asks nobody. Must not know: what is chosen.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping

from extproc.clock import Clock
from extproc.config.address import parse_tcp
from extproc.config.model import GatewayConfig, Redis
from extproc.routing.endpoint_book import EndpointBook, envoys_spelling
from extproc.routing.envoy_health import DownBoard
from extproc.routing.load_board import LoadBoard, PoolLoad
from extproc.routing.pressure import EndpointLoad
from extproc.stores import pending
from extproc.stores.pending import PendingStore, SharedPending
from extproc.telemetry.metrics import Metrics

_NOTHING = (0, False)
_log = logging.getLogger(__name__)


class EndpointWatch:
    """`keep` runs beside it for as long as it lives."""

    def __init__(self, loads: LoadBoard, down: DownBoard, clock: Clock, metrics: Metrics) -> None:
        self.book = EndpointBook()
        self._loads, self._down, self._clock = loads, down, clock
        self._metrics = metrics.endpoints
        self._degraded = functools.partial(metrics.degraded, pending.NAME)
        self._redis: Redis | None = None
        self._shared: SharedPending | None = None
        self._old: list[SharedPending] = []
        self._measured: Mapping[str, PoolLoad] = {}
        self._told: dict[tuple[str, str], tuple[int, bool]] = {}

    def take_up(self, config: GatewayConfig) -> None:
        """Watch what this configuration names, from now on."""
        self.book.take_up(config)
        self._measured = {}
        if config.redis == self._redis:
            return
        if self._shared is not None:
            self._old.append(self._shared)
        self._redis = config.redis
        store = PendingStore(config.redis.url.get_secret_value(), config.redis.timeout_s)
        self._shared = SharedPending(store, self.book, self._clock, self._degraded)

    async def keep(self) -> None:
        """For ever."""
        while True:
            try:
                await self.beat()
            except Exception:  # a bug of ours: choices go on with what was known
                _log.exception("what others have pending is not known")
            await asyncio.sleep(pending.BEAT_S)

    async def beat(self) -> None:
        """Learn what there is to know, once."""
        while self._old:
            await self._old.pop().close()
        if self._shared is None:
            return
        self._down.look()
        loads = self._loads.pools
        for name, endpoints in self.book.pools.items():
            endpoints.probed(self._down.down.get(name, frozenset()))
            load = loads.get(name)
            if load is not None and load is not self._measured.get(name):
                endpoints.measured(_by_envoys_spelling(load.endpoints))
        self._measured = loads
        await self._shared.beat()
        self._tell(self._shared.age_s)

    async def close(self) -> None:
        for shared in (*self._old, self._shared):
            if shared is not None:
                await shared.close()

    def _tell(self, age_s: float) -> None:
        """What has changed, to the metrics; of an endpoint that is gone, that nothing is there."""
        if self.book or self._told:
            self._metrics.age(age_s)
        now = {
            (name, address): (endpoints.own.get(address, 0), endpoints.is_out(address))
            for name, endpoints in self.book.pools.items()
            for address in endpoints.terms.weights
        }
        for (pool, address), before in self._told.items():
            if (pool, address) not in now and before != _NOTHING:
                self._metrics.now(pool, address, *_NOTHING)
        for (pool, address), state in now.items():
            if state != self._told.get((pool, address)):
                self._metrics.now(pool, address, *state)
        self._told = now


def _by_envoys_spelling(loads: Mapping[str, EndpointLoad]) -> Mapping[str, EndpointLoad]:
    return {
        envoys_spelling(parse_tcp(address)) if address.startswith("[") else address: load
        for address, load in loads.items()
        if not address[0].isalpha()
    }
