"""The gRPC server of one worker: either of two, which do the same.

grpcio's is gRPC's own for asyncio. Ours speaks HTTP/2 in the event loop: a third of the CPU, and memory that stays
flat. Nothing of the one that is not chosen is imported.
"""

from __future__ import annotations

from typing import Protocol

from extproc.config.address import TcpAddress, UnixAddress
from extproc.config.model import GrpcServer
from extproc.edge.service import Service


class Server(Protocol):
    """Serves one `Service` on one address."""

    async def start(self, address: TcpAddress | UnixAddress) -> None:
        """Listen and be healthy. Raises OSError when the address can't be bound."""

    async def drain(self, grace_s: float, notice_s: float = 0.0) -> None:
        """Say that no more should come; after `notice_s` take no more, let streams in flight end for at most `grace_s`,
        then stop."""


def server_of(choice: GrpcServer, service: Service) -> Server:
    """To be called in the event loop that it will run in."""
    if choice is GrpcServer.GRPCIO:
        from extproc.edge.grpcio_server import GrpcioServer

        return GrpcioServer(service)
    from extproc.edge.asyncio_server import AsyncioServer

    return AsyncioServer(service)
