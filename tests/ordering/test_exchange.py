"""The order of messages: what may come when, what may be said when, and the order in which replies go out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.errors import ProtocolError
from extproc.exchange.machine import ARRIVALS, EFFECTS, MAX_REPLY_BYTES, Arrived, Exchange, Said
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

EVENTS: list[Event] = [
    RequestHeaders({}),
    RequestHeaders({}, last=True),
    RequestBody(b"x"),
    RequestBody(b"x", last=True),
    RequestTrailers(),
    ResponseHeaders({":status": "200"}),
    ResponseHeaders({":status": "204"}, last=True),
    ResponseBody(b"y"),
    ResponseBody(b"y", last=True),
    ResponseTrailers(),
]
EFFECTS_TO_TRY: list[Effect] = [
    Forward(),
    Respond(400),
    StartAnswer(200),
    StartResponse(),
    WholeResponse(body=b"w"),
    Send(b"s"),
    End(b"e"),
]


def complete_request(body: bytes = b"body", *, trailers: bool = False) -> Exchange:
    exchange = Exchange(1 << 24)
    exchange.receive(RequestHeaders({}))
    exchange.receive(RequestBody(body, last=not trailers))
    if trailers:
        exchange.receive(RequestTrailers())
    return exchange


def responding() -> Exchange:
    exchange = complete_request()
    exchange.send(Forward())
    exchange.receive(ResponseHeaders({":status": "200"}))
    exchange.send(StartResponse())
    return exchange


class TestRequest:
    def test_headers_and_body_go_on_as_one_message(self) -> None:
        replies = complete_request(b"abc").send(Forward((("a", "b"),), ("c",), metadata={"m": 1}))
        assert list(replies) == [HeadersReply(True, (("a", "b"),), ("c",), {"m": 1}, b"abc")]

    def test_a_new_body_replaces_the_buffered_one(self) -> None:
        assert list(complete_request(b"abc").send(Forward(body=b"new"))) == [HeadersReply(True, body=b"new")]

    def test_an_empty_body_stays_a_body(self) -> None:
        assert list(complete_request(b"").send(Forward())) == [HeadersReply(True, body=b"")]

    def test_trailers_are_dropped_with_the_replaced_message(self) -> None:
        exchange = complete_request(trailers=True)
        assert exchange.forward_limit_bytes == MAX_REPLY_BYTES
        assert list(exchange.send(Forward())) == [HeadersReply(True, body=b"body")]

    def test_a_request_without_body_is_headers_alone(self) -> None:
        exchange = Exchange(10)
        exchange.receive(RequestHeaders({}, last=True))
        assert list(exchange.send(Forward())) == [HeadersReply(True)]

    def test_a_large_body_goes_in_pieces_of_which_only_the_last_is_last(self) -> None:
        body = bytes(2 * MAX_REPLY_BYTES + 1)
        pieces = [r for r in complete_request(body).send(Forward()) if isinstance(r, BodyReply)]
        assert b"".join(p.data for p in pieces) == body
        assert [p.last for p in pieces] == [False, False, True]

    def test_nothing_is_forwarded_before_the_request_is_complete(self) -> None:
        exchange = Exchange(10)
        exchange.receive(RequestHeaders({}))
        with pytest.raises(ProtocolError):
            exchange.send(Forward())

    def test_a_refusal_needs_no_body(self) -> None:
        exchange = Exchange(10)
        exchange.receive(RequestHeaders({}))
        assert exchange.send(Respond(401, body=b"no")) == (ImmediateReply(401, (), b"no", {}, ""),)
        assert exchange.finished

    def test_what_comes_after_a_refusal_is_swallowed(self) -> None:
        exchange = complete_request()
        exchange.send(Respond(401))
        assert [exchange.receive(event) for event in EVENTS] == [False] * len(EVENTS)

    @given(st.lists(st.binary(max_size=40), max_size=20))
    def test_any_split_of_the_body_gives_the_same_body(self, chunks: list[bytes]) -> None:
        exchange = Exchange(1 << 20)
        exchange.receive(RequestHeaders({}))
        for chunk in chunks:
            exchange.receive(RequestBody(chunk))
        exchange.receive(RequestBody(b"", last=True))
        assert exchange.request_body() == b"".join(chunks)

    @given(st.lists(st.binary(max_size=40), max_size=20), st.integers(0, 200))
    def test_a_body_over_the_limit_is_noticed_and_not_kept(self, chunks: list[bytes], limit: int) -> None:
        exchange = Exchange(limit)
        exchange.receive(RequestHeaders({}))
        for chunk in chunks:
            exchange.receive(RequestBody(chunk))
        assert exchange.request_too_large == (sum(map(len, chunks)) > limit)
        if exchange.request_too_large:
            assert len(exchange.request_body()) <= limit


class TestResponse:
    def test_body_flows_and_ends(self) -> None:
        exchange = responding()
        exchange.receive(ResponseBody(b"1"))
        assert exchange.send(Send(b"one")) == [BodyReply(False, b"one", last=False)]
        exchange.receive(ResponseBody(b"2", last=True))
        assert exchange.send(End(b"two", {"m": 1})) == [BodyReply(False, b"two", True, {"m": 1})]
        assert exchange.finished

    def test_trailers_end_the_response(self) -> None:
        exchange = responding()
        exchange.receive(ResponseBody(b"1"))
        exchange.receive(ResponseTrailers())
        assert exchange.send(End(b"tail", {"m": 1})) == [
            BodyReply(False, b"tail", last=False),
            TrailersReply(False, {"m": 1}),
        ]

    def test_a_response_without_body_needs_no_body_reply(self) -> None:
        exchange = complete_request()
        exchange.send(Forward())
        exchange.receive(ResponseHeaders({":status": "204"}, last=True))
        exchange.send(StartResponse())
        assert exchange.send(End()) == []

    def test_the_answer_may_be_cut_before_the_upstream_ends(self) -> None:
        exchange = responding()
        exchange.receive(ResponseBody(b"1"))
        assert exchange.send(End(b"cut"))[0] == BodyReply(False, b"cut", last=True)
        assert exchange.receive(ResponseBody(b"2")) is False

    @pytest.mark.parametrize("trailers", [False, True])
    def test_a_whole_response_is_replaced(self, trailers: bool) -> None:
        exchange = complete_request()
        exchange.send(Forward())
        exchange.receive(ResponseHeaders({":status": "200"}))
        exchange.receive(ResponseBody(b"1", last=not trailers))
        if trailers:
            exchange.receive(ResponseTrailers())
        replies = list(exchange.send(WholeResponse(body=b"new", metadata={"m": 1})))
        assert replies == [HeadersReply(False, metadata={"m": 1}, body=b"new")]
        assert exchange.finished

    def test_a_response_is_not_replaced_before_it_has_ended(self) -> None:
        exchange = complete_request()
        exchange.send(Forward())
        exchange.receive(ResponseHeaders({":status": "200"}))
        with pytest.raises(ProtocolError):
            exchange.send(WholeResponse())

    def test_a_response_may_be_replaced_until_its_head_is_out(self) -> None:
        exchange = complete_request()
        exchange.send(Forward())
        exchange.receive(ResponseHeaders({":status": "200"}))
        exchange.receive(ResponseBody(b"error"))
        assert isinstance(exchange.send(Respond(502))[0], ImmediateReply)
        with pytest.raises(ProtocolError):
            responding().send(Respond(502))

    def test_envoy_may_answer_before_the_request_is_whole(self) -> None:
        exchange = Exchange(10)
        exchange.receive(RequestHeaders({}))
        exchange.receive(ResponseHeaders({":status": "408"}))
        exchange.send(StartResponse())
        exchange.receive(ResponseBody(b"slow", last=True))
        assert exchange.send(End(b"slow"))[0] == BodyReply(False, b"slow", last=True)


class TestOwnStream:
    def test_a_streamed_answer_of_our_own(self) -> None:
        exchange = complete_request()
        assert exchange.send(StartAnswer(200, (("a", "b"),))) == (AnswerHeadersReply(200, (("a", "b"),)),)
        assert exchange.send(Send(b"1")) == [AnswerBodyReply(b"1", last=False)]
        assert exchange.send(End(b"2", {"m": 1})) == [AnswerBodyReply(b"2", True, {"m": 1})]
        assert exchange.finished


class TestTables:
    @pytest.mark.parametrize("event", EVENTS, ids=repr)
    @pytest.mark.parametrize("arrived", Arrived)
    def test_events_outside_the_table_are_protocol_errors(self, arrived: Arrived, event: Event) -> None:
        exchange = Exchange(10)
        exchange._arrived = arrived
        if (arrived, type(event)) in ARRIVALS:
            assert exchange.receive(event)
        else:
            with pytest.raises(ProtocolError):
                exchange.receive(event)

    @pytest.mark.parametrize("effect", EFFECTS_TO_TRY, ids=lambda e: type(e).__name__)
    @pytest.mark.parametrize("said", Said)
    @pytest.mark.parametrize("arrived", Arrived)
    def test_effects_outside_the_table_are_refused(self, arrived: Arrived, said: Said, effect: Effect) -> None:
        exchange = Exchange(10)
        exchange._arrived, exchange._said = arrived, said
        step = EFFECTS.get((said, type(effect)))
        if step is not None and arrived in step[1]:
            exchange.send(effect)
        else:
            with pytest.raises(ProtocolError):
                exchange.send(effect)

    @given(st.lists(st.one_of(st.sampled_from(EVENTS), st.sampled_from(EFFECTS_TO_TRY)), max_size=30))
    def test_any_sequence_keeps_header_body_trailer_order(self, steps: list[Event | Effect]) -> None:
        """Whatever is tried in whatever order, what gets out is what Envoy accepts."""
        exchange = Exchange(10)
        replies: list[Reply] = []
        for step in steps:
            try:
                if isinstance(step, Forward | Respond | StartAnswer | StartResponse | WholeResponse | Send | End):
                    replies += exchange.send(step)
                else:
                    exchange.receive(step)
            except ProtocolError:
                continue
        for of_request in (True, False):
            ranks = [_RANK[type(r)] for r in replies if getattr(r, "of_request", None) is of_request]
            assert ranks == sorted(ranks)
            assert ranks.count(0) <= 1
        ends = [r for r in replies if isinstance(r, ImmediateReply) or _ends_response(r)]
        assert len(ends) <= 1
        if ends:
            assert replies[-1] is ends[0]


def _ends_response(reply: Reply) -> bool:
    if isinstance(reply, HeadersReply):
        return reply.body is not None and not reply.of_request
    return isinstance(reply, AnswerBodyReply | BodyReply) and reply.last and not getattr(reply, "of_request", False)


_RANK: dict[type, int] = {HeadersReply: 0, BodyReply: 1, TrailersReply: 2}
