"""One snapshot for all who look."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Iterable

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from extproc import config
from extproc.admin import live
from extproc.admin.decisions import Decisions
from extproc.admin.live import LiveView
from extproc.admin.live_shapes import Live
from extproc.admin.shapes import Running
from extproc.config.model import GatewayConfig
from extproc.policies import pipeline
from extproc.routing.load_board import LoadBoard, PoolLoad, publish
from extproc.routing.pressure import EndpointLoad
from extproc.telemetry.metrics import Metrics

CONFIG = """
keys: {hash_secret: a-secret-of-enough-letters}
models: {m: {pool: p, operations: [chat], context_window: 100}}
pools:
  p: {dialect: openai, model: x, clusters: {a: {endpoints: ["127.0.0.1:1"], metrics: ["127.0.0.1:2"]}}}
"""


class Service:
    """The service's own metrics, in one process; and how often they were read."""

    def __init__(self, directory: pathlib.Path) -> None:
        path = directory / "gateway.yaml"
        path.write_text(CONFIG)
        self._config = config.load(path, pipeline.SETTINGS)
        self.registry = CollectorRegistry()
        self.own = Metrics(self.registry)
        self.reads = 0
        self.broken = False

    def metrics(self) -> Iterable[Metric]:
        self.reads += 1
        if self.broken:
            raise OSError("a file is gone")
        return self.registry.collect()

    def config(self) -> GatewayConfig:
        return self._config

    def running(self) -> Running:
        return Running(config_version="v", workers=1, ready=True, draining=False)

    def waiting_bytes(self) -> int | None:
        return 0


@pytest.fixture
def service(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr(live, "INTERVAL_S", 0.02)
    return Service(tmp_path)


@contextlib.asynccontextmanager
async def viewed(service: Service, directory: pathlib.Path) -> AsyncIterator[LiveView]:
    view = LiveView(service, Decisions(), LoadBoard(directory / "loads.json"))
    running = asyncio.create_task(view.run())
    yield view
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def until(view: LiveView, holds: str) -> Live:
    async with asyncio.timeout(10):
        while True:
            shown = msgspec.json.decode(await view.snapshot(), type=Live)
            if eval(holds, {"live": shown}):
                return shown
            await asyncio.sleep(0.01)


async def test_a_hundred_viewers_cost_as_much_as_one(
    service: Service, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "INTERVAL_S", 3600.0)
    async with viewed(service, tmp_path) as view:
        seen = {bytes(one) for one in await asyncio.gather(*(view.snapshot() for _ in range(100)))}
        seen |= {await view.snapshot() for _ in range(100)}
    assert len(seen) == 1
    assert service.reads == 1


async def test_what_was_counted_is_shown(service: Service, tmp_path: pathlib.Path) -> None:
    async with viewed(service, tmp_path) as view:
        empty = await until(view, "live.history.at")
        assert (empty.outcomes, empty.verdicts, empty.duration.p50_s) == ((), (), None)
        service.own.verdict("guard", "reject", "enforce", "injection")
        service.own.cache.looked_up("exact", "hit")
        service.own.cache.looked_up("exact", "miss")
        service.own.degraded("limit", True)
        publish(tmp_path / "loads.json", {"p": PoolLoad(0.5, 1, {"127.0.0.1:1": EndpointLoad(0.0, queued=8.0)})})
        shown = await until(view, "live.verdicts and live.degraded and live.pools[0].level")
    (verdict,) = shown.verdicts
    assert (verdict.policy, verdict.reason, verdict.recent, verdict.total) == ("guard", "injection", 1, 1)
    assert {(one.level, one.result, one.count) for one in shown.lookups} == {("exact", "hit", 1), ("exact", "miss", 1)}
    assert shown.history.cache_hits[-1] == 0.5
    assert shown.degraded == ("limit",)
    (pool,) = shown.pools
    assert (pool.pressure, pool.level, pool.endpoints[0].queued, pool.endpoints[0].pressure) == (0.5, 1, 8.0, 0.5)


async def test_the_columns_of_its_history_are_equally_long_and_bounded(
    service: Service, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_BUSY_SHARE", 1.0)
    monkeypatch.setattr(live, "INTERVAL_S", 0.0)
    monkeypatch.setattr(live, "WINDOW_S", 0.05)
    async with viewed(service, tmp_path) as view:
        shown = await until(view, f"len(live.history.at) == {live.KEPT}")
    assert {len(column) for column in msgspec.structs.astuple(shown.history)} == {live.KEPT}
    assert list(shown.history.at) == sorted(shown.history.at)


async def test_what_cannot_be_read_is_tried_again(service: Service, tmp_path: pathlib.Path) -> None:
    async with viewed(service, tmp_path) as view:
        await until(view, "live.history.at")
        service.broken = True
        broken_at = service.reads
        async with asyncio.timeout(10):
            while service.reads < broken_at + 3:
                await view.snapshot()
                await asyncio.sleep(0.01)
        service.broken = False
        service.own.verdict("guard", "reject", "enforce", "injection")
        await until(view, "live.verdicts")
