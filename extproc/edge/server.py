"""The ext_proc gRPC service of one worker: serves streams, answers health checks, drains.

Each stream is one coroutine that reads a message, has the session answer it, and reads the next: Envoy's side of the
protocol is a conversation, and the coroutine is cancelled at once when Envoy gives the stream up, even while a policy
waits.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

from google.protobuf.message import DecodeError

from extproc._pb.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.config.address import TcpAddress, UnixAddress
from extproc.edge import codec
from extproc.edge.calls import Call, CallFailed
from extproc.edge.frames import Status
from extproc.edge.health import Health
from extproc.edge.http2 import Connection
from extproc.errors import ProtocolError
from extproc.exchange.messages import Event, Reply

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

_BACKLOG = 1024
_EVERY_IPV6 = "::"
_log = logging.getLogger(__name__)


class Session(Protocol):
    """One exchange, as the server drives it."""

    async def receive(self, event: Event) -> bool:
        """True: all is said, nothing more of this exchange matters."""

    def cancel(self) -> None:
        """Envoy gave the stream up. Harmless after the end."""

    def fail(self) -> None:
        """A bug of ours, or a broken contract, ended the stream. Harmless after the end."""


Write = Callable[[Reply], Awaitable[None]]


class Server:
    """One worker's gRPC server. `open_session` starts one exchange; `on_protocol_error` counts broken contracts."""

    def __init__(self, open_session: Callable[[Write], Session], on_protocol_error: Callable[[], None]) -> None:
        self._open_session = open_session
        self._on_protocol_error = on_protocol_error
        self._health = Health(frozenset({"", SERVICE}))
        self._handlers = {f"/{SERVICE}/Process": self._process, **self._health.handlers}
        self._connections: set[Connection] = set()
        self._gone = asyncio.Event()  # all connections are
        self._gone.set()
        self._listener: asyncio.Server

    async def start(self, address: TcpAddress | UnixAddress) -> None:
        """Listen and be healthy. Raises OSError when the address can't be bound."""
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

    async def drain(self, grace_s: float) -> None:
        """Say that no more should come, let streams in flight end for at most `grace_s`, then stop."""
        self._health.drain()
        self._listener.close()
        for connection in self._connections:
            connection.drain()
        try:
            async with asyncio.timeout(grace_s):
                await self._gone.wait()
        except TimeoutError:
            for connection in self._connections:
                connection.abort()
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

    async def _process(self, call: Call) -> None:
        async def write(reply: Reply) -> None:
            await call.write(codec.encode(reply).SerializeToString())

        session = self._open_session(write)
        try:
            while (message := await call.read()) is not None:
                if await session.receive(codec.decode(ProcessingRequest.FromString(message))):
                    return  # closing the stream now saves Envoy and us the wait for its half-close
        except (ProtocolError, DecodeError) as error:
            self._on_protocol_error()
            _log.warning("protocol error: %s", error)
            session.fail()
            raise CallFailed(Status.FAILED_PRECONDITION, "protocol error") from error
        except Exception:
            session.fail()
            raise
        finally:
            session.cancel()
