"""Our own gRPC server, on HTTP/2 in the event loop (`http2`). Must not know what is said on the calls it takes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

from extproc.config.address import TcpAddress, UnixAddress
from extproc.edge.http2 import Connection
from extproc.edge.service import Service
from extproc.edge.stream import CUT_OFF_S

_BACKLOG = 1024
_EVERY_IPV6 = "::"
_log = logging.getLogger(__name__)


class AsyncioServer:
    """See `edge.server.Server`."""

    def __init__(self, service: Service) -> None:
        self._service, self._health = service, service.health
        self._handlers = service.handlers
        self._connections: set[Connection] = set()
        self._gone = asyncio.Event()  # all connections are
        self._gone.set()
        self._listener: asyncio.Server

    async def start(self, address: TcpAddress | UnixAddress) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(address, UnixAddress):
            self._listener = await loop.create_unix_server(self._connect, address.path, backlog=_BACKLOG)
        elif address.host == _EVERY_IPV6:  # and every IPv4 address, which asyncio would leave out
            listener = socket.create_server(
                (address.host, address.port), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True
            )
            self._listener = await loop.create_server(self._connect, sock=listener, backlog=_BACKLOG)
        else:
            self._listener = await loop.create_server(
                self._connect, address.host, address.port, backlog=_BACKLOG, reuse_port=True
            )
        self._health.serve()

    async def drain(self, grace_s: float, notice_s: float = 0.0) -> None:
        self._health.drain()
        await asyncio.sleep(notice_s)
        self._listener.close()
        for connection in self._connections:
            connection.drain()
        try:
            async with asyncio.timeout(grace_s):
                await self._gone.wait()
        except TimeoutError:
            _log.warning("streams are cut off", extra={"streams": self._service.streams})
            for connection in tuple(self._connections):
                connection.abort()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CUT_OFF_S):
                    await self._gone.wait()

    def _connect(self) -> Connection:
        connection = Connection(self._handlers.get, self._disconnected)
        self._connections.add(connection)
        self._gone.clear()
        return connection

    def _disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._gone.set()
