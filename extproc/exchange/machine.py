"""The exchange: legal orders of events in and replies out, as two literal tables.

Theory of operation. Envoy runs the filter with both bodies FULL_DUPLEX_STREAMED: headers, body chunks and trailers
arrive as they come, nothing waits for us, and no message timeout runs. We hold every reply until the request is
complete, so that a route can be chosen from the body; then headers, body and trailers go back in that order, or all in
one message that replaces the whole. The same holds for the response, except that its body may flow while it arrives.
Two facts follow a fixed course and are kept apart: `_arrived` is how far Envoy has come, `_said` how far we have come.

    _arrived   START -> REQUEST_BODY -> REQUEST_ENDED -> RESPONSE_BODY -> RESPONSE_ENDED
    _said      HOLDING -> FORWARDED -> RESPONDING -> FINISHED        (an upstream answers)
               FORWARDED -> FINISHED                                 (an upstream's answer, replaced whole)
               HOLDING | FORWARDED -> FINISHED                       (we answer, whole)
               HOLDING -> ANSWERING -> FINISHED                      (we answer, as a stream)

Envoy's own errors (a 408 for a slow body, a 503 for no upstream) are responses like any other and may come at any time,
even first: for a request that was too malformed for the filter chain to see. Events that come after FINISHED are
swallowed: Envoy had already sent them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, auto

from msgspec import structs

from extproc.errors import ProtocolError
from extproc.exchange.messages import (
    AnswerBodyReply,
    AnswerHeadersReply,
    BodyReply,
    Effect,
    End,
    Event,
    Forward,
    HeadersReply,
    ImmediateReply,
    Reply,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    Respond,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Send,
    StartAnswer,
    StartResponse,
    TrailersReply,
    WholeResponse,
)

# A body up to this size goes in one message. Envoy advises at most 64 KiB unless the gRPC client's limit is known; our
# generated configuration leaves it unlimited, and each message has its price. A replaced body must also fit the
# connection's buffer limit, which is 1 MiB unless it was raised.
MAX_REPLY_BYTES = 1 << 19


class Arrived(IntEnum):  # integers, because an Enum is hashed in Python, three times an event
    START = auto()
    REQUEST_BODY = auto()
    REQUEST_ENDED = auto()
    RESPONSE_BODY = auto()
    RESPONSE_ENDED = auto()


class Said(IntEnum):
    HOLDING = auto()
    FORWARDED = auto()
    RESPONDING = auto()
    ANSWERING = auto()
    FINISHED = auto()


_A = Arrived

# (where Envoy is, what it sends now) -> (where it is if more follows, where it is if that was the last).
ARRIVALS: dict[tuple[Arrived, type[Event]], tuple[Arrived, Arrived]] = {
    (_A.START, RequestHeaders): (_A.REQUEST_BODY, _A.REQUEST_ENDED),
    (_A.START, ResponseHeaders): (_A.RESPONSE_BODY, _A.RESPONSE_ENDED),
    (_A.REQUEST_BODY, RequestBody): (_A.REQUEST_BODY, _A.REQUEST_ENDED),
    (_A.REQUEST_BODY, RequestTrailers): (_A.REQUEST_ENDED, _A.REQUEST_ENDED),
    (_A.REQUEST_BODY, ResponseHeaders): (_A.RESPONSE_BODY, _A.RESPONSE_ENDED),
    (_A.REQUEST_ENDED, ResponseHeaders): (_A.RESPONSE_BODY, _A.RESPONSE_ENDED),
    (_A.RESPONSE_BODY, ResponseBody): (_A.RESPONSE_BODY, _A.RESPONSE_ENDED),
    (_A.RESPONSE_BODY, ResponseTrailers): (_A.RESPONSE_ENDED, _A.RESPONSE_ENDED),
}

_REQUEST_HELD = frozenset({_A.REQUEST_BODY, _A.REQUEST_ENDED})
_RESPONSE = frozenset({_A.RESPONSE_BODY, _A.RESPONSE_ENDED})

# (where we are, what we want) -> (where we are then, where Envoy must be for it to be legal).
EFFECTS: dict[tuple[Said, type[Effect]], tuple[Said, frozenset[Arrived]]] = {
    (Said.HOLDING, Forward): (Said.FORWARDED, frozenset({_A.REQUEST_ENDED})),
    (Said.HOLDING, Respond): (Said.FINISHED, _REQUEST_HELD | _RESPONSE),
    (Said.HOLDING, StartAnswer): (Said.ANSWERING, frozenset({_A.REQUEST_ENDED})),
    # Envoy answered before the request was whole: the response goes on though nothing was forwarded.
    (Said.HOLDING, StartResponse): (Said.RESPONDING, _RESPONSE),
    (Said.FORWARDED, Respond): (Said.FINISHED, frozenset({_A.REQUEST_ENDED}) | _RESPONSE),
    (Said.FORWARDED, StartResponse): (Said.RESPONDING, _RESPONSE),
    (Said.FORWARDED, WholeResponse): (Said.FINISHED, frozenset({_A.RESPONSE_ENDED})),
    (Said.RESPONDING, Send): (Said.RESPONDING, _RESPONSE),
    (Said.RESPONDING, End): (Said.FINISHED, _RESPONSE),
    (Said.ANSWERING, Send): (Said.ANSWERING, frozenset({_A.REQUEST_ENDED})),
    (Said.ANSWERING, End): (Said.FINISHED, frozenset({_A.REQUEST_ENDED})),
}


class Exchange:
    """One request and its response over one ext_proc stream. Synchronous and without clocks."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._arrived = Arrived.START
        self._said = Said.HOLDING
        self._chunks: list[bytes] = []
        self._size_bytes = 0
        self._request_has_body = False
        self._request_has_trailers = False
        self._response_has_body = False
        self._response_has_trailers = False

    @property
    def finished(self) -> bool:
        """We have said all there is to say; what Envoy still sends is swallowed."""
        return self._said is Said.FINISHED

    @property
    def forwarded(self) -> bool:
        """The request is on its way to a pool."""
        return self._said is Said.FORWARDED

    @property
    def responding(self) -> bool:
        """The client already has the head of the response."""
        return self._said in (Said.RESPONDING, Said.ANSWERING)

    @property
    def streamable(self) -> bool:
        """The response can have a body in pieces. Envoy gives one that came without a body none but a whole one."""
        return self._response_has_body or self._arrived is not Arrived.RESPONSE_ENDED

    @property
    def forward_limit_bytes(self) -> int | None:
        """How large a body may be forwarded; None: any that was taken.

        Envoy's router keeps a body it was given in pieces for retries, and sends it twice when trailers follow.
        """
        return MAX_REPLY_BYTES if self._request_has_trailers else None

    @property
    def request_too_large(self) -> bool:
        """More than `limit_bytes` of request body came; the surplus is not kept."""
        return self._size_bytes > self._limit_bytes

    def request_body(self) -> bytes:
        """The buffered request body."""
        if len(self._chunks) != 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0]

    def receive(self, event: Event) -> bool:
        """Take one event. False: it came after the end and means nothing any more.

        Raises ProtocolError when Envoy could not have sent it here.
        """
        if self._said is Said.FINISHED:
            return False
        steps = ARRIVALS.get((self._arrived, type(event)))
        if steps is None:
            raise ProtocolError(f"{type(event).__name__} while {self._arrived.name}")
        if isinstance(event, RequestBody):
            self._request_has_body = True
            self._buffer(event.data)
        elif isinstance(event, ResponseBody):
            self._response_has_body = True
        elif isinstance(event, RequestTrailers):
            self._request_has_trailers = True
        elif isinstance(event, ResponseTrailers):
            self._response_has_trailers = True
        self._arrived = steps[1] if event.last else steps[0]
        return True

    def _buffer(self, data: bytes) -> None:
        self._size_bytes += len(data)
        if self._size_bytes > self._limit_bytes:
            self._chunks.clear()
        elif data:
            self._chunks.append(data)

    def send(self, effect: Effect) -> Sequence[Reply]:
        """The replies that carry out `effect` now. Raises ProtocolError when it is not legal now (a bug of ours)."""
        step = EFFECTS.get((self._said, type(effect)))
        if step is None or self._arrived not in step[1]:
            raise ProtocolError(f"{type(effect).__name__} while {self._said.name} and {self._arrived.name}")
        answering = self._said is Said.ANSWERING
        self._said = step[0]
        if isinstance(effect, Send):
            return self._send(effect, answering)
        if isinstance(effect, End):
            return self._end(effect, answering)
        if isinstance(effect, StartResponse):
            return (HeadersReply(False, effect.set_headers, effect.remove_headers),)
        if isinstance(effect, Forward):
            return self._forward(effect)
        if isinstance(effect, WholeResponse):
            return self._replace(effect)
        if isinstance(effect, Respond):
            self._chunks.clear()
            return (ImmediateReply(effect.status, effect.headers, effect.body, effect.metadata, effect.details),)
        return (AnswerHeadersReply(effect.status, effect.headers),)

    def _forward(self, effect: Forward) -> Sequence[Reply]:
        body = self.request_body() if effect.body is None else effect.body
        self._chunks.clear()
        head = HeadersReply(True, effect.set_headers, effect.remove_headers, effect.metadata)
        return _whole(head, body, self._request_has_body, self._request_has_trailers)

    def _replace(self, effect: WholeResponse) -> Sequence[Reply]:
        head = HeadersReply(False, effect.set_headers, effect.remove_headers, effect.metadata)
        return _whole(head, effect.body, self._response_has_body, self._response_has_trailers)

    def _send(self, effect: Send, answering: bool) -> list[Reply]:
        if answering:
            return [AnswerBodyReply(effect.data, last=False)]
        return [BodyReply(False, effect.data, last=False)]

    def _end(self, effect: End, answering: bool) -> list[Reply]:
        if answering:
            return [AnswerBodyReply(effect.data, last=True, metadata=effect.metadata)]
        if self._response_has_trailers:
            body: list[Reply] = [BodyReply(False, effect.data, last=False)] if effect.data else []
            return [*body, TrailersReply(False, effect.metadata)]
        if self._arrived is Arrived.RESPONSE_ENDED and not self._response_has_body:
            return []  # a response that was headers alone ended with its headers reply
        return [BodyReply(False, effect.data, last=True, metadata=effect.metadata)]


def _whole(head: HeadersReply, body: bytes, has_body: bool, has_trailers: bool) -> Sequence[Reply]:
    """A whole message in as few replies as can be: one, which drops trailers (no API has any), unless it is large."""
    if not has_body and not has_trailers:
        return (head,)
    if len(body) <= MAX_REPLY_BYTES:
        return (structs.replace(head, body=body),)
    replies: list[Reply] = [head]
    starts = range(0, len(body), MAX_REPLY_BYTES)
    for start in starts:
        last = start == starts[-1] and not has_trailers
        replies.append(BodyReply(head.of_request, body[start : start + MAX_REPLY_BYTES], last))
    if has_trailers:
        replies.append(TrailersReply(head.of_request))
    return replies
