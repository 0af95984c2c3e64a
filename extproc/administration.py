"""What the supervisor lets its admin interface see and do, and its start in a thread of its own.

Everything here is called from that thread: it reads what the supervisor replaces whole, and asks it to stop by way of
its event loop. Must not know: HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from extproc.admin.api import endpoints_of
from extproc.admin.decisions import Decisions
from extproc.admin.guard import Guard
from extproc.admin.live import LiveView
from extproc.admin.server import AdminServer, collected, start_admin
from extproc.admin.shapes import Running
from extproc.admin.thread import AdminThread
from extproc.config.admin import is_loopback
from extproc.config.model import GatewayConfig
from extproc.routing.load_board import LoadBoard
from extproc.stores.ledger_feed import LedgerFeed


@dataclass(frozen=True, slots=True)
class Administered:
    """The service as its admin interface knows it. `stopping` is set, within `loop`, to begin its end."""

    config: Callable[[], GatewayConfig]
    ready: Callable[[], bool]
    stopping: asyncio.Event
    loop: asyncio.AbstractEventLoop
    workers: int
    feeds: Sequence[LedgerFeed]
    beside: Sequence[Collector]

    def metrics(self) -> Iterable[Metric]:
        return collected(self.beside)

    def waiting_bytes(self) -> int | None:
        return sum(feed.waiting_bytes() for feed in self.feeds) if self.feeds else None

    def running(self) -> Running:
        return Running(
            config_version=self.config().version,
            workers=self.workers,
            ready=self.ready(),
            draining=self.stopping.is_set(),
        )

    def info(self) -> dict[str, Any]:
        return {"config_version": self.config().version, "workers": self.workers}

    def drain(self) -> None:
        self.loop.call_soon_threadsafe(self.stopping.set)


async def start_administration(service: Administered, decisions: Decisions, board: LoadBoard) -> AdminThread:
    """Raises OSError if the admin address is taken."""
    listen = service.config().service.admin

    async def serve() -> AdminServer:
        return await start_admin(
            listen,
            ready=service.ready,
            info=service.info,
            beside=service.beside,
            # A token that has changed holds from the reload on; the address stays the one of the start.
            guard=lambda: Guard(is_loopback(listen), service.config().service.token),
            endpoints=endpoints_of(service),
            live=LiveView(service, decisions, board),
        )

    return await AdminThread.start(serve)
