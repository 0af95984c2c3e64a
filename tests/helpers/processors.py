"""A tiny ext_proc server for tests of the generated Envoy configuration, in a process of its own so that it can
be stopped and killed. Its messages are those of envoy_data_plane, not ours.

A request says in `x-test-action` what becomes of it; without one it is stamped with the pool in `x-test-pool`.
What the processor was sent goes upstream in `x-test-seen`, as JSON. Run: `python -m tests.helpers.processors ADDRESS`.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import grpc
import grpc.aio
from envoy_data_plane.envoy.config.core.v3 import HeaderMap, HeaderValue, HeaderValueOption
from envoy_data_plane.envoy.config.core.v3 import HeaderValueOptionHeaderAppendAction as Append
from envoy_data_plane.envoy.service.ext_proc.v3 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    HttpHeaders,
    ImmediateResponse,
    ProcessingRequest,
    ProcessingResponse,
    StreamedBodyResponse,
    StreamedImmediateResponse,
    TrailersResponse,
)
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Struct, Value
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

Context = grpc.aio.ServicerContext[ProcessingRequest, ProcessingResponse]

_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
# Envoy pings more often than gRPC servers put up with by default.
_PINGS = (("grpc.http2.max_ping_strikes", 0),)
REFUSAL = '{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}'


async def process(requests: AsyncIterator[ProcessingRequest], context: Context) -> AsyncIterator[ProcessingResponse]:
    seen: dict[str, list[str]] = {}
    body = b""
    async for request in requests:
        if request.request_headers is not None:
            seen = _headers(request.request_headers.headers)
            if request.request_headers.end_of_stream:
                async for reply in _decide(seen, body, context, has_body=False):
                    yield reply
        elif request.request_body is not None:
            body += request.request_body.body
            if request.request_body.end_of_stream:
                async for reply in _decide(seen, body, context, has_body=True):
                    yield reply
        elif request.request_trailers is not None:
            async for reply in _decide(seen, body, context, has_body=True, ends=False):
                yield reply
            yield ProcessingResponse(request_trailers=TrailersResponse())
        else:
            yield _response(request, seen)


async def _decide(
    seen: dict[str, list[str]], body: bytes, context: Context, *, has_body: bool, ends: bool = True
) -> AsyncIterator[ProcessingResponse]:
    action = seen.get("x-test-action", ["stamp"])[0]
    if action == "abort":
        await context.abort(grpc.StatusCode.INTERNAL, "as told")
    if action == "hang":
        await asyncio.sleep(3600)
    if action == "return":
        return
    if action.startswith("refuse"):
        yield _refusal(action)
    elif action == "stream":
        yield ProcessingResponse(
            streamed_immediate_response=StreamedImmediateResponse(
                headers_response=_http_headers(
                    {":status": "200", "content-type": "text/event-stream", "x-extproc-model": "m"}
                )
            )
        )
        for text in (b"data: 1\n\n", b"data: 2\n\n"):
            await asyncio.sleep(0.05)
            yield _streamed(text, end=False)
        yield _streamed(b"data: [DONE]\n\n", end=True)
    else:
        added = {"x-test-seen": json.dumps(seen)}
        if action != "ignore":
            added["x-extproc-pool"] = seen.get("x-test-pool", ["demo"])[0]
        if "x-test-path" in seen:
            added[":path"] = seen["x-test-path"][0]
        yield ProcessingResponse(
            request_headers=_headers_response(added), dynamic_metadata=_metadata(model="m", prompt_tokens=7)
        )
        if has_body:
            yield ProcessingResponse(request_body=_body_response(body, end=ends))


def _response(request: ProcessingRequest, seen: dict[str, list[str]]) -> ProcessingResponse:
    if request.response_headers is not None:
        return ProcessingResponse(response_headers=_headers_response({"x-extproc-model": "m"}))
    if request.response_body is not None:
        chunk = request.response_body
        metadata = _metadata(completion_tokens=5, ttft_ms=40) if chunk.end_of_stream else None
        return ProcessingResponse(
            response_body=_body_response(chunk.body, end=chunk.end_of_stream), dynamic_metadata=metadata
        )
    return ProcessingResponse(response_trailers=TrailersResponse())


def _refusal(action: str) -> ProcessingResponse:
    kind = "text/event-stream" if action == "refuse-sse" else "application/json"
    return ProcessingResponse(
        immediate_response=ImmediateResponse(
            status=HttpStatus(code=StatusCode(401)),
            headers=HeaderMutation(set_headers=[_set("content-type", kind), _set("x-extproc-model", "m")]),
            body=REFUSAL.encode(),
            details="extproc.refused" if action != "refuse-without-details" else "",
        ),
        dynamic_metadata=_metadata(model="refused"),
    )


def _headers(headers: HeaderMap | None) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for header in headers.headers if headers else []:
        result.setdefault(header.key, []).append((header.raw_value or header.value.encode()).decode())
    return result


def _set(name: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(
        header=HeaderValue(key=name, raw_value=value.encode()), append_action=Append.OVERWRITE_IF_EXISTS_OR_ADD
    )


def _http_headers(values: dict[str, str]) -> HttpHeaders:
    headers = [HeaderValue(key=name, raw_value=value.encode()) for name, value in values.items()]
    return HttpHeaders(headers=HeaderMap(headers=headers))


def _headers_response(values: dict[str, str]) -> HeadersResponse:
    mutation = HeaderMutation(set_headers=[_set(name, value) for name, value in values.items()])
    return HeadersResponse(response=CommonResponse(header_mutation=mutation))


def _body_response(body: bytes, *, end: bool) -> BodyResponse:
    streamed = StreamedBodyResponse(body=body, end_of_stream=end)
    return BodyResponse(response=CommonResponse(body_mutation=BodyMutation(streamed_response=streamed)))


def _streamed(body: bytes, *, end: bool) -> ProcessingResponse:
    return ProcessingResponse(
        streamed_immediate_response=StreamedImmediateResponse(
            body_response=StreamedBodyResponse(body=body, end_of_stream=end)
        )
    )


def _metadata(**values: str | int) -> Struct:
    fields = {
        name: Value(string_value=value) if isinstance(value, str) else Value(number_value=value)
        for name, value in values.items()
    }
    return Struct(fields={"extproc": Value(struct_value=Struct(fields=fields))})


async def serve(address: str) -> None:
    server = grpc.aio.server(options=_PINGS)
    method = grpc.stream_stream_rpc_method_handler(
        process, request_deserializer=ProcessingRequest.parse, response_serializer=bytes
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Process": method}),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
