"""The least a Python external processor can do with the message phases ours uses: stamp, echo, echo.

`noop.py ADDRESS POOL SERVER`: the yardstick of `make bench`. Same proto classes, no policies, no parsing. SERVER is
`grpc`, which is gRPC's own for asyncio with its defaults, or `edge`, which is the one that extproc has instead.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extproc._pb.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse
from extproc.edge.calls import Call
from extproc.edge.health import Health
from extproc.edge.http2 import Connection, Handler

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"


def processor(pool: bytes) -> Callable[[Any, Any], Any]:
    async def process(_: Any, stream: Any) -> None:
        body = b""
        while isinstance(message := await stream.read(), ProcessingRequest):
            kind = message.WhichOneof("request")
            if kind == "request_body":
                body += message.request_body.body
                if message.request_body.end_of_stream:
                    await stream.write(_stamped(pool))
                    await stream.write(_echo("request_body", body, True))
            elif kind == "response_headers":
                await stream.write(ProcessingResponse(response_headers={"response": {}}))
            elif kind == "response_body":
                part = message.response_body
                await stream.write(_echo("response_body", part.body, part.end_of_stream))

    return process


def _stamped(pool: bytes) -> ProcessingResponse:
    reply = ProcessingResponse()
    reply.request_headers.response.clear_route_cache = True
    option = reply.request_headers.response.header_mutation.set_headers.add()
    option.header.key, option.header.raw_value, option.append_action = "x-extproc-pool", pool, 2
    return reply


def _echo(field: str, body: bytes, last: bool) -> ProcessingResponse:
    reply = ProcessingResponse()
    streamed = getattr(reply, field).response.body_mutation.streamed_response
    streamed.body, streamed.end_of_stream = body, last
    return reply


async def serve_with_grpc(address: str, pool: bytes) -> None:
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        processor(pool), ProcessingRequest.FromString, ProcessingResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Process": handler}),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in ("", SERVICE):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


class Stream:
    """A call of extproc's edge, as gRPC's looks."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def read(self) -> ProcessingRequest | None:
        message = await self._call.read()
        return None if message is None else ProcessingRequest.FromString(message)

    async def write(self, reply: ProcessingResponse) -> None:
        await self._call.write(reply.SerializeToString())


async def serve_with_edge(address: str, pool: bytes) -> None:
    process = processor(pool)
    serving = Health(frozenset({"", SERVICE}))
    serving.serve()
    handlers: dict[str, Handler] = {f"/{SERVICE}/Process": lambda call: process(None, Stream(call)), **serving.handlers}
    path = address.removeprefix("unix:")
    server = await asyncio.get_running_loop().create_unix_server(lambda: Connection(handlers.get, lambda _: None), path)
    await server.serve_forever()


if __name__ == "__main__":
    serve = {"grpc": serve_with_grpc, "edge": serve_with_edge}[sys.argv[3]]
    asyncio.run(serve(sys.argv[1], sys.argv[2].encode()))
