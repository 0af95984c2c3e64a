"""gRPC's health service (grpc.health.v1): Envoy and Kubernetes ask with Check, other clients may Watch."""

from __future__ import annotations

import asyncio

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from extproc.edge.calls import Call, CallFailed
from extproc.edge.frames import Status
from extproc.edge.http2 import Handler

_SERVICE = "/grpc.health.v1.Health/"


class Health:
    """One state for all services of this server: it serves, or it doesn't."""

    def __init__(self, services: frozenset[str]) -> None:
        self._services = services
        self._serving = False
        self._drained = asyncio.Event()
        self.handlers: dict[str, Handler] = {f"{_SERVICE}Check": self._check, f"{_SERVICE}Watch": self._watch}

    def serve(self) -> None:
        self._serving = True

    def drain(self) -> None:
        """For good. Who watches is told, and his call ends."""
        self._serving = False
        self._drained.set()

    async def _check(self, call: Call) -> None:
        service = await _service_asked_for(call)
        if service not in self._services:
            raise CallFailed(Status.NOT_FOUND, "unknown service")
        await call.write(self._state())

    async def _watch(self, call: Call) -> None:
        service = await _service_asked_for(call)
        if service not in self._services:
            unknown = HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
            await call.write(unknown.SerializeToString())
        else:
            await call.write(self._state())
        if self._serving:
            await self._drained.wait()
            if service in self._services:
                await call.write(self._state())

    def _state(self) -> bytes:
        status = HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING
        return HealthCheckResponse(status=status).SerializeToString()


async def _service_asked_for(call: Call) -> str:
    message = await call.read()
    try:
        return HealthCheckRequest.FromString(message or b"").service
    except DecodeError as error:
        raise CallFailed(Status.INTERNAL, "no HealthCheckRequest") from error
