"""grpcio's server for asyncio. Must not know what is said on the calls it takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc

from extproc.config.address import TcpAddress, UnixAddress
from extproc.edge.service import Service
from extproc.edge.stream import CUT_OFF_S, MAX_MESSAGE_BYTES, MAX_STREAMS, CallFailed, Handler

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 1),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),  # Envoy's keepalive finds a hung worker by pings
    ("grpc.http2.max_ping_strikes", 0),
)
_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_log = logging.getLogger(__name__)

_Context = grpc.aio.ServicerContext[bytes, bytes]


class GrpcioServer:
    """See `edge.server.Server`."""

    def __init__(self, service: Service) -> None:
        self._service, self._health = service, service.health
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((_Methods(service),))

    async def start(self, address: TcpAddress | UnixAddress) -> None:
        try:
            self._server.add_insecure_port(str(address))
        except RuntimeError as error:
            raise OSError(f"can't listen on {address}") from error
        await self._server.start()
        self._health.serve()

    async def drain(self, grace_s: float, notice_s: float = 0.0) -> None:
        self._health.drain()
        await asyncio.sleep(notice_s)
        stopping = asyncio.ensure_future(self._server.stop(grace_s))
        if not (await asyncio.wait([stopping], timeout=grace_s))[0]:
            _log.warning("streams are cut off", extra={"streams": self._service.streams})
            # gRPC ends its calls and then itself, and says nothing of how long that may take.
            await asyncio.wait([stopping], timeout=CUT_OFF_S)


class _Methods(grpc.GenericRpcHandler):
    """Every method takes and gives messages as bytes: on the wire a call with one message each way is no other."""

    def __init__(self, service: Service) -> None:
        self._methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            path: grpc.stream_stream_rpc_method_handler(_behaviour(handler))
            for path, handler in service.handlers.items()
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._methods.get(details.method)


class _Stream:
    """See `edge.stream.Stream`."""

    def __init__(self, context: _Context) -> None:
        self._context = context
        self.write = context.write

    @property
    def traceparent(self) -> str:
        metadata = self._context.invocation_metadata() or ()
        return next((str(value) for name, value in metadata if name == "traceparent"), "")

    async def read(self) -> bytes | None:
        message = cast("Any", await self._context.read())
        return None if message is grpc.aio.EOF else message


def _behaviour(handler: Handler) -> Callable[[Any, _Context], Awaitable[None]]:
    async def serve(_: Any, context: _Context) -> None:
        try:
            await handler(_Stream(context))
        except CallFailed as failed:
            await context.abort(_STATUS[failed.status], failed.message)
        except Exception:
            _log.exception("call failed")
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")

    return serve
