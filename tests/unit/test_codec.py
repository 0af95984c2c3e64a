"""Replies as Envoy reads them, by Envoy's own message definitions; requests as they become events."""

from __future__ import annotations

from typing import Any

import pytest
from envoy_data_plane.envoy.service.ext_proc.v3 import ProcessingResponse as EnvoysResponse

from extproc._pb.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.edge import codec
from extproc.errors import ProtocolError
from extproc.exchange.messages import (
    AnswerBodyReply,
    AnswerHeadersReply,
    BodyReply,
    HeadersReply,
    ImmediateReply,
    Reply,
    RequestHeaders,
    ResponseHeaders,
    TrailersReply,
)
from extproc.mesh import names


def as_envoy_reads(reply: Reply) -> Any:
    return EnvoysResponse.parse(codec.encode(reply).SerializeToString())


def headers_of(mutation: Any) -> dict[str, bytes]:
    return {option.header.key: option.header.raw_value for option in mutation.set_headers}


def test_headers_reply_of_a_request_clears_the_route() -> None:
    read = as_envoy_reads(HeadersReply(True, (("a", "1"), ("b", "\xe9")), ("c", "d"), {"who": "me", "n": 3}, b"body"))
    common = read.request_headers.response
    assert common.clear_route_cache
    assert common.status == 1
    assert common.body_mutation.body == b"body"
    assert headers_of(common.header_mutation) == {"a": b"1", "b": b"\xe9"}
    assert all(option.append_action == 2 for option in common.header_mutation.set_headers)
    assert common.header_mutation.remove_headers == ["c", "d"]
    assert read.dynamic_metadata.to_dict() == {"extproc": {"who": "me", "n": 3.0}}


def test_headers_reply_without_body_continues() -> None:
    read = as_envoy_reads(HeadersReply(False))
    assert read.response_headers.response.status == 0
    assert read.request_headers is None


@pytest.mark.parametrize("of_request", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_body_reply(of_request: bool, last: bool) -> None:
    read = as_envoy_reads(BodyReply(of_request, b"x", last))
    streamed = (read.request_body if of_request else read.response_body).response.body_mutation.streamed_response
    assert (streamed.body, streamed.end_of_stream) == (b"x", last)


def test_trailers_reply() -> None:
    assert as_envoy_reads(TrailersReply(True)).request_trailers is not None
    assert as_envoy_reads(TrailersReply(False)).response_trailers is not None


def test_immediate_reply_is_marked_as_ours() -> None:
    read = as_envoy_reads(ImmediateReply(429, (("retry-after", "1"),), b"{}", {"n": 1}, "slow_down"))
    immediate = read.immediate_response
    assert (immediate.status.code, immediate.body, immediate.details) == (429, b"{}", "extproc.slow_down")
    assert headers_of(immediate.headers) == {"retry-after": b"1"}
    assert read.dynamic_metadata is not None


def test_an_answer_of_our_own() -> None:
    head = as_envoy_reads(AnswerHeadersReply(200, (("content-type", "text/event-stream"),)))
    sent = {h.key: h.raw_value for h in head.streamed_immediate_response.headers_response.headers.headers}
    assert sent == {":status": b"200", "content-type": b"text/event-stream"}
    body = as_envoy_reads(AnswerBodyReply(b"x", last=True)).streamed_immediate_response.body_response
    assert (body.body, body.end_of_stream) == (b"x", True)


def request_headers(*headers: tuple[str, bytes], mode: int = 4) -> ProcessingRequest:
    message = ProcessingRequest()
    for key, value in headers:
        message.request_headers.headers.headers.add(key=key, raw_value=value)
    message.protocol_config.request_body_mode = mode  # type: ignore[assignment]
    message.protocol_config.response_body_mode = mode  # type: ignore[assignment]
    return message


def test_repeated_headers_are_joined_and_bytes_survive() -> None:
    event = codec.decode(request_headers(("a", b"1"), ("a", b"2"), ("b", b"\xff")))
    assert event == RequestHeaders({"a": "1,2", "b": "\xff"})


def routed_by(attribute: str, virtual_host: str) -> ProcessingRequest:
    message = request_headers(("a", b"1"))
    message.attributes["envoy.filters.http.ext_proc"].fields[attribute].string_value = virtual_host
    return message


@pytest.mark.parametrize(
    ("virtual_host", "pools"),
    [
        (names.virtual_host_name(["a"]), {"a"}),
        (names.virtual_host_name(["a", "b-c"]), {"a", "b-c"}),
        ("written-by-hand", None),
        ("", None),
    ],
)
def test_a_request_says_which_pools_it_can_be_routed_to(virtual_host: str, pools: set[str] | None) -> None:
    event = codec.decode(routed_by(names.POOLS_ATTRIBUTE, virtual_host))
    assert event == RequestHeaders({"a": "1"}, pools=None if pools is None else frozenset(pools))


def test_an_answer_says_whose_it_is_where_envoy_tells() -> None:
    message = ProcessingRequest()
    message.response_headers.end_of_stream = True
    assert codec.decode(message) == ResponseHeaders({}, last=True)
    message.attributes["envoy.filters.http.ext_proc"].fields[names.ENDPOINT_ATTRIBUTE].string_value = "10.0.0.1:8000"
    assert codec.decode(message) == ResponseHeaders({}, last=True, endpoint="10.0.0.1:8000")
    details = message.attributes["envoy.filters.http.ext_proc"].fields[names.DETAILS_ATTRIBUTE]
    details.string_value = "via_upstream"
    assert codec.decode(message) == ResponseHeaders({}, last=True, endpoint="10.0.0.1:8000")
    details.string_value = "upstream_reset_before_response_started{overflow}"
    assert codec.decode(message) == ResponseHeaders({}, last=True)


def test_another_body_mode_is_refused() -> None:
    with pytest.raises(ProtocolError, match="FULL_DUPLEX"):
        codec.decode(request_headers(("a", b"1"), mode=2))


def test_an_empty_message_is_refused() -> None:
    with pytest.raises(ProtocolError):
        codec.decode(ProcessingRequest())
