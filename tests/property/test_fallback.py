"""Whatever the first pool and the next one do, in whatever pieces: one answer of one of them or one error, one usage
event, and never a word of two answers."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.errors import DependencyError
from extproc.exchange.messages import (
    BodyReply,
    Event,
    HeadersReply,
    ImmediateReply,
    Reply,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)
from extproc.fallback import OtherPools
from extproc.routing.catalog import Fallback
from extproc.routing.pool_calls import PoolAnswer, PoolCalls
from tests.helpers.journeys import KEY, Inside

HEAD = {":method": "POST", ":path": "/v1/chat/completions", "authorization": f"Bearer {KEY}", "x-request-id": "r-1"}
SSE, JSON = "text/event-stream", "application/json"
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"first"},"finish_reason":%b}]}\n\n'
WHOLE = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"first"},"finish_reason":"stop"}]}'
PIECE = {"text_output": "second", "finish_reason": "stop", "num_input_tokens": 7, "num_output_tokens": 3}
ERROR = b'{"error":"on fire"}'

Said = tuple[int, str, bytes]
FIRST: dict[str, tuple[Said, Said]] = {  # asked for a whole answer, and for a stream
    "good": ((200, JSON, WHOLE), (200, SSE, DELTA % b"null" + DELTA % b'"stop"' + b"data: [DONE]\n\n")),
    "refuses": ((503, JSON, ERROR),) * 2,
    "says nothing": ((500, "", b""),) * 2,
    "breaks": ((200, JSON, WHOLE[:-9]), (200, SSE, DELTA % b"null" + b"data: " + ERROR + b"\n\n")),
    "is cut": ((200, JSON, b""), (200, SSE, DELTA % b"null")),
    "blames": ((400, JSON, ERROR),) * 2,
}
SECOND: dict[str, tuple[Said, Said]] = {
    "good": ((200, JSON, orjson.dumps(PIECE)), (200, SSE, b"data: " + orjson.dumps(PIECE) + b"\n\n")),
    "refuses": ((503, JSON, ERROR),) * 2,
    "breaks": (
        (200, JSON, orjson.dumps(PIECE)[:-3]),
        (200, SSE, b'data: {"text_output": "second"}\n\ndata: ' + ERROR + b"\n\n"),
    ),
    "is cut": ((200, JSON, b"{"), (200, SSE, b'data: {"text_output": "second"}\n\n')),
}


class Scripted(PoolCalls):
    """Another pool that says this, in these pieces, and then perhaps loses its connection."""

    def __init__(self, said: Said | None, cuts: list[int], lost: bool) -> None:
        self._said, self._cuts, self._lost = said, cuts, lost
        self.asked = 0

    @asynccontextmanager
    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[PoolAnswer]:
        self.asked += 1
        if self._said is None:
            raise DependencyError("envoy", "nobody listens")
        status, kind, data = self._said
        yield PoolAnswer(status, {"content-type": kind}, self._chunks(data))

    async def _chunks(self, data: bytes) -> AsyncIterator[bytes]:
        for piece in cut(data, self._cuts):
            yield piece
        if self._lost:
            raise DependencyError("envoy", "the connection broke")


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(one % (len(data) + 1) for one in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def events(said: Said, cuts: list[int], body: bytes) -> list[Event]:
    status, kind, data = said
    head = {":status": str(status), "content-type": kind, "retry-after": "9"}
    request: list[Event] = [RequestHeaders(HEAD), RequestBody(body, last=True)]
    if not data:
        return [*request, ResponseHeaders(head, last=True)]
    return [*request, ResponseHeaders(head), *map(ResponseBody, cut(data, cuts)), ResponseBody(b"", last=True)]


def shown(replies: list[Reply]) -> tuple[int, bytes, int]:
    """Status, body, and how many ends the client sees."""
    status, body, ends = 200, b"", 0
    for reply in replies:
        if isinstance(reply, ImmediateReply):
            status, body, ends = reply.status, body + reply.body, ends + 1
        elif isinstance(reply, HeadersReply) and not reply.of_request:
            status = int(dict(reply.set_headers).get(":status", status))
            body, ends = body + (reply.body or b""), ends + (reply.body is not None)
        elif isinstance(reply, BodyReply) and not reply.of_request:
            body, ends = body + reply.data, ends + reply.last
    return status, body, ends


@settings(max_examples=150, deadline=None)
@given(
    first=st.sampled_from(sorted(FIRST)),
    second=st.sampled_from([*sorted(SECOND), "is not there"]),
    lost=st.booleans(),
    streams=st.booleans(),
    first_cuts=st.lists(st.integers(0, 500), max_size=4),
    second_cuts=st.lists(st.integers(0, 500), max_size=4),
)
async def test_one_answer(
    first: str, second: str, lost: bool, streams: bool, first_cuts: list[int], second_cuts: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        inside = Inside(Path(directory))
    calls = Scripted(None if second == "is not there" else SECOND[second][streams], second_cuts, lost)
    known = inside.services.catalog
    fallback = Fallback(known.pools["triton"], known.models["writer"])
    catalog = dataclasses.replace(known, fallbacks={"openai": (fallback,)})
    others = OtherPools(catalog, calls, inside.services.metrics)
    inside.runtime = dataclasses.replace(inside.runtime, other_pools=others)
    body = orjson.dumps({"model": "talker", "messages": [{"role": "user", "content": "Hi"}], "stream": streams})
    replies = await inside.exchange(events(FIRST[first][streams], first_cuts, body))

    status, answer, ends = shown(replies)
    assert ends == 1
    assert not (b"first" in answer and b"second" in answer)
    assert calls.asked <= 1
    assert not (calls.asked and first in ("good", "blames"))
    (event,) = inside.usage.events
    assert not inside.usage.owed
    assert event["status"] == status
    if b"second" in answer:
        assert (event["pool"], event["fallback_from"], event["served_model"]) == ("triton", "openai", "writer")
    else:
        assert event["pool"] == "openai" or b'"error"' in answer
    if event["termination"] == "COMPLETED":
        assert status == 200
        assert b'"error"' not in answer
    if calls.asked and second == "good" and not lost:
        assert (event["termination"], event["completion_tokens"], event["prompt_tokens"]) == ("COMPLETED", 3, 7)
