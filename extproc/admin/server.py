"""What an operator asks the service over HTTP.

Owns the listening, the paths for monitoring and their formats. Must not know: how readiness is decided or what is
measured; it is given both.

`/metrics` is Prometheus's text format, or OpenMetrics for who asks for it: that has exemplars. With several worker
processes they keep their values in the files of PROMETHEUS_MULTIPROC_DIR, which are added up here on every scrape.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
import prometheus_client
from aiohttp import web
from prometheus_client import multiprocess
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from extproc.admin.api import BASE
from extproc.admin.endpoints import Call, Endpoint, Input
from extproc.admin.guard import Guard
from extproc.admin.http_api import Connection, HttpApi, guarded
from extproc.admin.live import LiveView
from extproc.admin.live_shapes import Live
from extproc.admin.page import add_page
from extproc.config.address import TcpAddress
from extproc.config.admin import is_loopback
from extproc.telemetry.exemplars import WithExemplars, latest

MOST_CONNECTIONS = 256
"""Further ones are closed at once: descriptors are the supervisor's, too."""

_CLOSE_TIMEOUT_S = 2.0
_KEEPALIVE_S = 15.0


class AdminServer:
    """A listening admin interface; close it."""

    def __init__(self, runner: web.AppRunner, listening: asyncio.Server, live: LiveView | None) -> None:
        self._runner, self._listening = runner, listening
        self._reading = None if live is None else asyncio.get_running_loop().create_task(live.run())
        self.port: int = listening.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._listening.close()
        if self._reading is not None:
            self._reading.cancel()
        await self._runner.cleanup()


async def start_admin(
    listen: TcpAddress,
    *,
    ready: Callable[[], bool],
    info: Callable[[], Mapping[str, Any]],
    registry: prometheus_client.CollectorRegistry | None = None,
    beside: Sequence[Collector] = (),
    guard: Callable[[], Guard] | None = None,
    endpoints: Sequence[Endpoint] = (),
    live: LiveView | None = None,
) -> AdminServer:
    """Listen on `listen` (port 0: any, see `port`). Raises OSError if that is taken.

    `ready` answers `/readyz`, `info` is shown as JSON by `/config`. `registry` holds the metrics of this
    process; without one they come from PROMETHEUS_MULTIPROC_DIR, and what `beside` collects is shown with them.
    `guard` decides who may ask for more than metrics and health; without one nobody needs a token on loopback, and
    nobody may from elsewhere.
    """
    app = guarded(guard or (lambda: Guard(is_loopback(listen), None)))
    app.add_routes(
        [
            web.get("/healthz", _healthz),
            web.get("/readyz", _Readiness(ready).answer),
            web.get("/config", _Information(info).answer),
            web.get("/metrics", _Scrape(registry, beside).answer),
        ]
    )
    if live is not None:
        add_page(app)
        endpoints = (*endpoints, live_endpoint(live))
    HttpApi(endpoints).add_to(app)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_CLOSE_TIMEOUT_S)
    await runner.setup()
    try:
        listening = await asyncio.get_running_loop().create_server(_bounded(runner), listen.host, listen.port)
    except OSError:
        await runner.cleanup()
        raise
    return AdminServer(runner, listening, live)


def live_endpoint(live: LiveView) -> Endpoint:
    """The live view's numbers, as an endpoint of the API."""

    async def snapshot(call: Call[Input]) -> bytes:
        return await live.snapshot()

    return Endpoint(
        method="GET",
        path=f"{BASE}/live",
        name="readLive",
        summary="What the live view shows; made at most once a second, for everyone who asks.",
        takes=Input,
        gives=Live,
        handle=snapshot,
    )


def collected(beside: Sequence[Collector] = ()) -> Iterable[Metric]:
    """The metrics of every worker, added up, and of what is beside them. Reads files: not for an event loop."""
    registry = prometheus_client.CollectorRegistry()
    directory = os.environ["PROMETHEUS_MULTIPROC_DIR"]
    multiprocess.MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    for collector in beside:
        registry.register(collector)
    return registry.collect()


def _bounded(runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
    server = runner.server
    assert server is not None
    loop = asyncio.get_running_loop()

    def accept() -> asyncio.Protocol:
        if len(server.connections) >= MOST_CONNECTIONS:
            return _Refused()
        return Connection(server, loop=loop, access_log=None, keepalive_timeout=_KEEPALIVE_S)  # type: ignore[arg-type]

    return accept


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


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
