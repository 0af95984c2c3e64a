"""The ext_proc gRPC service of one worker: serves streams, answers health checks, drains.

Each stream is one coroutine that reads a message, has the session answer it, and reads the next: Envoy's side of the
protocol is a conversation, and grpc.aio cancels the coroutine at once when Envoy gives the stream up, even while a
policy waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extproc._pb.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse
from extproc.config.address import TcpAddress, UnixAddress
from extproc.edge import codec
from extproc.errors import ProtocolError
from extproc.exchange.messages import Event, Reply

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

_OPTIONS = (
    ("grpc.max_receive_message_length", 16 << 20),  # one body message is what Envoy read at once, far below this
    ("grpc.so_reuseport", 1),
    ("grpc.max_concurrent_streams", 100_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),  # Envoy's keepalive finds a hung worker by pings
    ("grpc.http2.max_ping_strikes", 0),
)
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
Stream = grpc.aio.ServicerContext[ProcessingRequest, ProcessingResponse]


class Server:
    """One worker's gRPC server. `open_session` starts one exchange; `on_protocol_error` counts broken contracts."""

    def __init__(self, open_session: Callable[[Write], Session], on_protocol_error: Callable[[], None]) -> None:
        self._open_session = open_session
        self._on_protocol_error = on_protocol_error
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(
            self._process, ProcessingRequest.FromString, ProcessingResponse.SerializeToString
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Process": handler}),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self, address: TcpAddress | UnixAddress) -> None:
        """Listen and be healthy. Raises RuntimeError when the address can't be bound."""
        self._server.add_insecure_port(str(address))
        await self._server.start()
        await self._say(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace_s: float) -> None:
        """Say that no more should come, let streams in flight end for at most `grace_s`, then stop."""
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.stop(grace_s)

    async def _say(self, status: Any) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)

    async def _process(self, _: Any, stream: Stream) -> None:
        async def write(reply: Reply) -> None:
            await stream.write(codec.encode(reply))

        session = self._open_session(write)
        try:
            while isinstance(message := await stream.read(), ProcessingRequest):  # else: EOF
                if await session.receive(codec.decode(message)):
                    return  # closing the stream now saves Envoy and us the wait for its half-close
        except ProtocolError as error:
            self._on_protocol_error()
            _log.warning("protocol error: %s", error)
            session.fail()
            await stream.abort(grpc.StatusCode.FAILED_PRECONDITION, "protocol error")
        except asyncio.CancelledError:
            raise
        except grpc.aio.AbortError:
            raise
        except Exception:
            _log.exception("stream failed")
            session.fail()
            await stream.abort(grpc.StatusCode.INTERNAL, "internal error")
        finally:
            session.cancel()
