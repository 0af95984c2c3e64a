"""ext_proc messages to exchange events, and exchange replies to ext_proc messages, one to one."""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping

from google.protobuf.struct_pb2 import Struct

from extproc._pb.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from extproc._pb.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from extproc._pb.envoy.service.ext_proc.v3.external_processor_pb2 import (
    CommonResponse,
    HeaderMutation,
    HttpHeaders,
    ImmediateResponse,
    ProcessingRequest,
    ProcessingResponse,
    StreamedImmediateResponse,
)
from extproc.errors import ProtocolError
from extproc.exchange.messages import (
    AnswerBodyReply,
    AnswerHeadersReply,
    BodyReply,
    Claims,
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

_JWT_NAMESPACE = "envoy.filters.http.jwt_authn"

DETAILS_PREFIX = "extproc."
"""How Envoy's response code details begin where we answered; by it the generated configuration leaves our errors as
they are, and rewrites only Envoy's own."""

POOLS_ATTRIBUTE = "xds.virtual_host_name"
"""The request attribute that says which pools the request can be routed to, where it is one of generated routes."""

POOLS_PREFIX = "pools:"

ENDPOINT_ATTRIBUTE = "upstream.address"
"""The response attribute that says which endpoint answered, where Envoy is configured to tell it."""

DETAILS_ATTRIBUTE = "response.code_details"
"""The response attribute that says who made the answer, and why; with the endpoint's, and as little without it."""

_OVERFLOW = "overflow"
"""Part of the details where a circuit breaker let nothing through: the endpoint was chosen, and never asked."""

_DOUBLE = struct.Struct("<d")


def decode(message: ProcessingRequest) -> Event:
    """Raises ProtocolError for a message that is none of the six, or a filter configured with other body modes."""
    kind = message.WhichOneof("request")
    if kind == "response_body":
        return ResponseBody(message.response_body.body, message.response_body.end_of_stream)
    if kind == "request_body":
        return RequestBody(message.request_body.body, message.request_body.end_of_stream)
    if kind == "request_headers":
        _check_modes(message)
        headers, last = _headers(message.request_headers), message.request_headers.end_of_stream
        return RequestHeaders(headers, last, _pools(message), _claims(message))
    if kind == "response_headers":
        headers, last = _headers(message.response_headers), message.response_headers.end_of_stream
        return ResponseHeaders(headers, last, _endpoint(message))
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


def _claims(message: ProcessingRequest) -> Claims:
    """What Envoy's jwt_authn filter found in a token that it accepted; nobody else can write its namespace."""
    found = message.metadata_context.filter_metadata
    if _JWT_NAMESPACE not in found:  # asking a map for what it lacks would add it
        return {}
    issuers = found[_JWT_NAMESPACE].fields.items()
    return {
        issuer: {
            name: claim.string_value
            for name, claim in payload.struct_value.fields.items()
            if claim.WhichOneof("kind") == "string_value"
        }
        for issuer, payload in issuers
    }


def _pools(message: ProcessingRequest) -> frozenset[str] | None:
    name = _attribute(message, POOLS_ATTRIBUTE)
    return None if name is None else _pools_named(name)


def _endpoint(message: ProcessingRequest) -> str:
    if not message.attributes or _OVERFLOW in (_attribute(message, DETAILS_ATTRIBUTE) or ""):
        return ""
    return _attribute(message, ENDPOINT_ATTRIBUTE) or ""


def _attribute(message: ProcessingRequest, name: str) -> str | None:
    for attributes in message.attributes.values():
        if name in attributes.fields:
            return attributes.fields[name].string_value
    return None


@functools.lru_cache(maxsize=64)
def _pools_named(virtual_host: str) -> frozenset[str] | None:
    """Another virtual host's name is that of routes which somebody wrote by hand."""
    if not virtual_host.startswith(POOLS_PREFIX):
        return None
    return frozenset(virtual_host.removeprefix(POOLS_PREFIX).split(","))


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
    """One reply as Envoy wants it.

    Messages are filled in place: handing a nested message to a constructor copies it, at every level.
    """
    message = ProcessingResponse()
    if isinstance(reply, BodyReply):
        body = message.request_body if reply.of_request else message.response_body
        streamed = body.response.body_mutation.streamed_response
        streamed.body = reply.data
        streamed.end_of_stream = reply.last
    elif isinstance(reply, HeadersReply):
        _fill_headers(message, reply)
    elif isinstance(reply, ImmediateReply):
        _fill_immediate(message.immediate_response, reply)
    elif isinstance(reply, TrailersReply):
        (message.request_trailers if reply.of_request else message.response_trailers).SetInParent()
    else:
        _fill_answer(message.streamed_immediate_response, reply)
    if reply.metadata:
        _fill_metadata(message, reply.metadata)
    return message


def _fill_headers(message: ProcessingResponse, reply: HeadersReply) -> None:
    if reply.of_request:
        common = message.request_headers.response
        # The route is chosen again now that our stamp is there.
        common.clear_route_cache = True
    else:
        common = message.response_headers.response
    common.header_mutation.MergeFromString(_mutation(reply.set_headers, reply.remove_headers))
    if reply.body is not None:
        common.status = CommonResponse.CONTINUE_AND_REPLACE
        common.body_mutation.body = reply.body


def _fill_immediate(immediate: ImmediateResponse, reply: ImmediateReply) -> None:
    immediate.status.code = reply.status  # type: ignore[assignment]  # proto3 enums are open
    immediate.headers.MergeFromString(_mutation(reply.headers, ()))
    immediate.body = reply.body
    immediate.details = DETAILS_PREFIX + reply.details


def _fill_answer(answer: StreamedImmediateResponse, reply: AnswerHeadersReply | AnswerBodyReply) -> None:
    if isinstance(reply, AnswerBodyReply):
        answer.body_response.body = reply.data
        answer.body_response.end_of_stream = reply.last
        return
    headers = answer.headers_response.headers.headers
    for name, value in ((":status", str(reply.status)), *reply.headers):
        headers.add(key=name, raw_value=_value(value))


def _mutation(set_headers: Headers, remove_headers: tuple[str, ...]) -> bytes:
    """Serialized, piece by piece from a cache: most of what we set is the same for many requests."""
    return b"".join(_set_header(name, value) for name, value in set_headers) + _remove_headers(remove_headers)


@functools.lru_cache(maxsize=4096)
def _set_header(name: str, value: str) -> bytes:
    header = HeaderValue(key=name, raw_value=_value(value))
    option = HeaderValueOption(header=header, append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)
    return HeaderMutation(set_headers=[option]).SerializeToString()


@functools.lru_cache(maxsize=256)
def _remove_headers(names: tuple[str, ...]) -> bytes:
    return HeaderMutation(remove_headers=names).SerializeToString()


def _value(text: str) -> bytes:
    return text.encode("latin-1", "replace")


def _fill_metadata(message: ProcessingResponse, metadata: Mapping[str, str | int | float | bool]) -> None:
    fields = message.dynamic_metadata.fields[NAMESPACE].struct_value
    fields.MergeFromString(b"".join([_field(name, value) for name, value in metadata.items()]))


def _field(name: str, value: str | float) -> bytes:
    return _text_field(name, value) if isinstance(value, str) else _number_field(name) + _DOUBLE.pack(value)


@functools.lru_cache(maxsize=4096)
def _text_field(name: str, value: str) -> bytes:
    """Serialized, for names of principals, models and pools come again and again."""
    one = Struct()
    one.fields[name].string_value = value
    return one.SerializeToString()


@functools.lru_cache(maxsize=256)
def _number_field(name: str) -> bytes:
    """Serialized, without the number itself, which stands last."""
    one = Struct()
    one.fields[name].number_value = 0.0
    return one.SerializeToString()[: -_DOUBLE.size]
