"""What Envoy tells us (events), what we decide (effects) and what goes back on the wire (replies).

Plain values (msgspec Structs: made ten times cheaper than frozen dataclasses, and there are a dozen an exchange):
`edge` maps events and replies to protobuf one to one, `journey` chooses effects, `machine` turns an
effect into the replies that are legal at that moment, in header, body, trailer order.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

Headers = tuple[tuple[str, str], ...]
Metadata = dict[str, str | int | float | bool]


Claims = dict[str, dict[str, str]]
"""The texts in a token that Envoy has verified, by the name that the configuration gives its issuer."""


# Events: one ProcessingRequest each.


class RequestHeaders(Struct, frozen=True):
    """`pools`: those Envoy can route this very request to, whatever it learns later; None: it did not say."""

    headers: dict[str, str]
    last: bool = False
    pools: frozenset[str] | None = None
    claims: Claims = {}


class RequestBody(Struct, frozen=True):
    data: bytes
    last: bool = False


class RequestTrailers(Struct, frozen=True):
    last: ClassVar[bool] = True


class ResponseHeaders(Struct, frozen=True):
    """`endpoint`: `host:port` of the server that answers, where Envoy says so; empty, too, where its circuit breaker
    did before any server was asked."""

    headers: dict[str, str]
    last: bool = False
    endpoint: str = ""


class ResponseBody(Struct, frozen=True):
    data: bytes
    last: bool = False


class ResponseTrailers(Struct, frozen=True):
    last: ClassVar[bool] = True


Event = RequestHeaders | RequestBody | RequestTrailers | ResponseHeaders | ResponseBody | ResponseTrailers


# Effects: what the journey wants to happen.


class Forward(Struct, frozen=True):
    """Send the request on to a pool. `body` None: the buffered body goes on as it came."""

    set_headers: Headers = ()
    remove_headers: tuple[str, ...] = ()
    body: bytes | None = None
    metadata: Metadata = {}


class Respond(Struct, frozen=True):
    """Answer the client ourselves, whole (refusal, cache hit, error in place of the upstream's answer)."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    metadata: Metadata = {}
    details: str = ""


class StartAnswer(Struct, frozen=True):
    """Answer the client ourselves as a stream: body follows by `Send`, end by `End`."""

    status: int
    headers: Headers = ()


class StartResponse(Struct, frozen=True):
    """Let the upstream's response headers go on, changed."""

    set_headers: Headers = ()
    remove_headers: tuple[str, ...] = ()


class WholeResponse(Struct, frozen=True):
    """Put this in place of the upstream's whole response, whose status stays."""

    set_headers: Headers = ()
    remove_headers: tuple[str, ...] = ()
    body: bytes = b""
    metadata: Metadata = {}


class Send(Struct, frozen=True):
    """Body bytes for the client, as many or as few as we like for what came in."""

    data: bytes


class End(Struct, frozen=True):
    """The client's response ends here, with `data` as its last bytes, even if the upstream would go on."""

    data: bytes = b""
    metadata: Metadata = {}


Effect = Forward | Respond | StartAnswer | StartResponse | WholeResponse | Send | End


# Replies: one ProcessingResponse each.


class HeadersReply(Struct, frozen=True):
    """Continue with the request's or the response's headers, changed.

    With a `body` the whole message is replaced by these headers and that body: one message where headers, body and end
    would be two or three.
    """

    of_request: bool
    set_headers: Headers = ()
    remove_headers: tuple[str, ...] = ()
    metadata: Metadata = {}
    body: bytes | None = None


class BodyReply(Struct, frozen=True):
    of_request: bool
    data: bytes
    last: bool
    metadata: Metadata = {}


class TrailersReply(Struct, frozen=True):
    of_request: bool
    metadata: Metadata = {}


class ImmediateReply(Struct, frozen=True):
    status: int
    headers: Headers
    body: bytes
    metadata: Metadata
    details: str


class AnswerHeadersReply(Struct, frozen=True):
    """First message of a streamed immediate response."""

    status: int
    headers: Headers
    metadata: Metadata = {}


class AnswerBodyReply(Struct, frozen=True):
    data: bytes
    last: bool
    metadata: Metadata = {}


Reply = HeadersReply | BodyReply | TrailersReply | ImmediateReply | AnswerHeadersReply | AnswerBodyReply
