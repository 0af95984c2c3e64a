"""ext_proc messages to exchange events, and exchange replies to ext_proc messages, one to one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from extproc._pb.envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue, HeaderValueOption
from extproc._pb.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from extproc._pb.envoy.service.ext_proc.v3.external_processor_pb2 import (
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
from extproc._pb.envoy.type.v3.http_status_pb2 import HttpStatus
from extproc.errors import ProtocolError
from extproc.exchange.messages import (
    AnswerHeadersReply,
    BodyReply,
    Event,
    Headers,
    HeadersReply,
    ImmediateReply,
    Reply,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    TrailersReply,
)

NAMESPACE = "extproc"
"""Dynamic metadata namespace."""

_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def decode(message: ProcessingRequest) -> Event:
    """Raises ProtocolError for a message that is none of the six, or a filter configured with other body modes."""
    kind = message.WhichOneof("request")
    if kind == "response_body":
        return ResponseBody(message.response_body.body, message.response_body.end_of_stream)
    if kind == "request_body":
        return RequestBody(message.request_body.body, message.request_body.end_of_stream)
    if kind == "request_headers":
        _check_modes(message)
        return RequestHeaders(_headers(message.request_headers), message.request_headers.end_of_stream)
    if kind == "response_headers":
        return ResponseHeaders(_headers(message.response_headers), message.response_headers.end_of_stream)
    if kind == "request_trailers":
        return RequestTrailers()
    if kind == "response_trailers":
        return ResponseTrailers()
    raise ProtocolError("a ProcessingRequest without a request")


def _check_modes(message: ProcessingRequest) -> None:
    config = message.protocol_config
    duplex = ProcessingMode.FULL_DUPLEX_STREAMED
    if config.request_body_mode != duplex or config.response_body_mode != duplex:
        raise ProtocolError("the ext_proc filter must have both body modes FULL_DUPLEX_STREAMED")


def _headers(message: HttpHeaders) -> dict[str, str]:
    """Lower-case names; repeated headers are joined, so that nobody picks one of two conflicting values."""
    headers: dict[str, str] = {}
    for header in message.headers.headers:
        # latin-1, as HTTP header bytes have no charset: nothing is lost and nothing raises.
        value = header.raw_value.decode("latin-1") if header.raw_value else header.value
        name = header.key
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def encode(reply: Reply) -> ProcessingResponse:
    """One reply as Envoy wants it."""
    if isinstance(reply, BodyReply):
        return _body(reply)
    if isinstance(reply, HeadersReply):
        return _header_reply(reply)
    if isinstance(reply, TrailersReply):
        trailers = TrailersResponse()
        if reply.of_request:
            return _with_metadata(ProcessingResponse(request_trailers=trailers), reply.metadata)
        return _with_metadata(ProcessingResponse(response_trailers=trailers), reply.metadata)
    if isinstance(reply, ImmediateReply):
        return _immediate(reply)
    if isinstance(reply, AnswerHeadersReply):
        headers = HeaderMap(headers=[_header(n, v) for n, v in ((":status", str(reply.status)), *reply.headers)])
        answer = StreamedImmediateResponse(headers_response=HttpHeaders(headers=headers))
        return ProcessingResponse(streamed_immediate_response=answer)
    body = StreamedBodyResponse(body=reply.data, end_of_stream=reply.last)
    answer = StreamedImmediateResponse(body_response=body)
    return _with_metadata(ProcessingResponse(streamed_immediate_response=answer), reply.metadata)


def _body(reply: BodyReply) -> ProcessingResponse:
    streamed = StreamedBodyResponse(body=reply.data, end_of_stream=reply.last)
    response = BodyResponse(response=CommonResponse(body_mutation=BodyMutation(streamed_response=streamed)))
    if reply.of_request:
        return _with_metadata(ProcessingResponse(request_body=response), reply.metadata)
    return _with_metadata(ProcessingResponse(response_body=response), reply.metadata)


def _header_reply(reply: HeadersReply) -> ProcessingResponse:
    mutation = _mutation(reply.set_headers, reply.remove_headers)
    if reply.of_request:
        # The route is chosen again now that our stamp is there.
        common = CommonResponse(header_mutation=mutation, clear_route_cache=True)
        return _with_metadata(ProcessingResponse(request_headers=HeadersResponse(response=common)), reply.metadata)
    common = CommonResponse(header_mutation=mutation)
    return _with_metadata(ProcessingResponse(response_headers=HeadersResponse(response=common)), reply.metadata)


def _immediate(reply: ImmediateReply) -> ProcessingResponse:
    immediate = ImmediateResponse(
        status=HttpStatus(code=reply.status),  # type: ignore[arg-type]  # proto3 enums are open
        headers=_mutation(reply.headers, ()),
        body=reply.body,
        details=reply.details,
    )
    return _with_metadata(ProcessingResponse(immediate_response=immediate), reply.metadata)


def _mutation(set_headers: Headers, remove_headers: Iterable[str]) -> HeaderMutation:
    options = [HeaderValueOption(header=_header(name, value), append_action=_OVERWRITE) for name, value in set_headers]
    return HeaderMutation(set_headers=options, remove_headers=remove_headers)


def _header(name: str, value: str) -> HeaderValue:
    return HeaderValue(key=name, raw_value=value.encode("latin-1", "replace"))


def _with_metadata(response: ProcessingResponse, metadata: Mapping[str, Any]) -> ProcessingResponse:
    if metadata:
        fields = response.dynamic_metadata.fields[NAMESPACE].struct_value.fields
        for name, value in metadata.items():
            if isinstance(value, str):
                fields[name].string_value = value
            else:
                fields[name].number_value = value
    return response
