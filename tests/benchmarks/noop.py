"""The least a Python external processor can do with the message phases ours uses: stamp, echo, echo.

`noop.py ADDRESS POOL`: the yardstick of `make bench`. Same proto classes, same gRPC options, no policies, no parsing.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import grpc

from extproc._pb.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse

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


async def serve(address: str, pool: bytes) -> None:
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        processor(pool), ProcessingRequest.FromString, ProcessingResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Process": handler}),))
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in ("", SERVICE):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2].encode()))
