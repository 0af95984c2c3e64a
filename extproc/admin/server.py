"""What an operator asks the service over HTTP.

Owns the paths and their formats. Must not know: how readiness is decided or what is measured; it is given both.

`/metrics` is Prometheus's text format, or OpenMetrics for who asks for it: that has exemplars. With several worker
processes they keep their values in the files of PROMETHEUS_MULTIPROC_DIR, which are added up here on every scrape.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import prometheus_client
from aiohttp import web
from prometheus_client import multiprocess
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from extproc.config.address import TcpAddress
from extproc.telemetry.exemplars import WithExemplars, latest

_CLOSE_TIMEOUT_S = 2.0


class AdminServer:
    """A listening admin interface; close it."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        self._runner = runner
        self.port = port

    async def close(self) -> None:
        await self._runner.cleanup()


async def start_admin(
    listen: TcpAddress,
    *,
    ready: Callable[[], bool],
    info: Callable[[], Mapping[str, Any]],
    registry: prometheus_client.CollectorRegistry | None = None,
    beside: Sequence[Collector] = (),
) -> AdminServer:
    """Listen on `listen` (port 0: any, see `port`). Raises OSError if that is taken.

    `ready` answers `/readyz`, `info` is shown as JSON by `/config`. `registry` holds the metrics of this
    process; without one they come from PROMETHEUS_MULTIPROC_DIR, and what `beside` collects is shown with them.
    """
    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", _healthz),
            web.get("/readyz", _Readiness(ready).answer),
            web.get("/config", _Information(info).answer),
            web.get("/metrics", _Scrape(registry, beside).answer),
        ]
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_CLOSE_TIMEOUT_S)
    await runner.setup()
    site = web.TCPSite(runner, listen.host, listen.port)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    return AdminServer(runner, runner.addresses[0][1])


async def _healthz(request: web.Request) -> web.Response:
    """This process runs its event loop; nothing more is meant."""
    return web.Response(text="ok\n")


class _Readiness:
    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready

    async def answer(self, request: web.Request) -> web.Response:
        return web.Response(text="ready\n") if self._ready() else web.Response(status=503, text="not ready\n")


class _Information:
    def __init__(self, info: Callable[[], Mapping[str, Any]]) -> None:
        self._info = info

    async def answer(self, request: web.Request) -> web.Response:
        body = orjson.dumps(dict(self._info()), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        return web.Response(body=body, content_type="application/json")


class _Scrape:
    def __init__(
        self,
        registry: prometheus_client.CollectorRegistry | None,
        beside: Sequence[Collector],
    ) -> None:
        self._registry = registry
        self._beside = beside

    async def answer(self, request: web.Request) -> web.Response:
        # Reads a file per worker and metric type, so it stays off the event loop.
        write, content_type = choose_encoder(request.headers.get("accept", ""))
        body = await asyncio.to_thread(self._render, write)
        return web.Response(body=body, headers={"content-type": content_type})

    def _render(self, write: Callable[[Collector], bytes]) -> bytes:
        if self._registry is not None:
            return write(self._registry)
        directory = os.environ["PROMETHEUS_MULTIPROC_DIR"]
        registry = prometheus_client.CollectorRegistry()
        numbers = multiprocess.MultiProcessCollector(None, directory)  # type: ignore[no-untyped-call]
        for collector in (WithExemplars(numbers, latest(directory)), *self._beside):
            registry.register(collector)
        return write(registry)
