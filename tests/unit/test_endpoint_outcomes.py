"""What becomes of an answer is told to whoever chose its endpoint: of a pool asked first, and of one asked instead."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from extproc import config
from extproc.errors import DependencyError
from extproc.exchange.messages import Event, RequestBody, RequestHeaders, ResponseBody, ResponseHeaders
from extproc.fallback import ENDPOINT, OtherPools
from extproc.policies import pipeline
from extproc.routing.catalog import Fallback
from extproc.routing.endpoints import Endpoints
from extproc.routing.pool_calls import PoolAnswer, PoolCalls
from tests.helpers.journeys import KEY, Inside

A, B = "10.0.0.1:8000", "10.0.0.2:8000"
CONFIG = """
keys: {{hash_secret: 0123456789abcdef}}
models: {{m: {{pool: {pool}, operations: [chat], context_window: 100}}}}
pools:
  {pool}:
    dialect: openai
    model: x
    balancing: least_tokens
    clusters: {{c: {{endpoints: ["10.0.0.1:8000", "10.0.0.2:8000"]}}}}
"""
HEAD = {":method": "POST", ":path": "/v1/chat/completions", "authorization": f"Bearer {KEY}", "x-request-id": "r-1"}
SSE, JSON = "text/event-stream", "application/json"
ERROR = b'{"error":{"message":"on fire","code":500}}'
WHOLE = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"first"},"finish_reason":"stop"}]}'
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"first"},"finish_reason":null}]}\n\n'
SECOND = orjson.dumps({"text_output": "second", "finish_reason": "stop", "num_input_tokens": 7, "num_output_tokens": 3})


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path)


def chosen_in(inside: Inside, pool: str) -> Endpoints:
    """The service chooses there; B is always idle."""
    inside.services.endpoints.take_up(config.parse(CONFIG.format(pool=pool), {}, {}))
    endpoints = inside.services.endpoints.of(pool)
    assert endpoints is not None
    endpoints.take(A, 100_000)
    inside.runtime = dataclasses.replace(inside.runtime, pipeline=pipeline.build({}, inside.services))
    return endpoints


def asked(streams: bool = False) -> list[Event]:
    body = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}], "stream": streams}
    return [RequestHeaders(HEAD), RequestBody(orjson.dumps(body), last=True)]


def says(kind: str, *pieces: bytes, status: int = 200) -> list[Event]:
    head = ResponseHeaders({":status": str(status), "content-type": kind}, endpoint=B)
    return [head, *map(ResponseBody, pieces), ResponseBody(b"", last=True)]


@pytest.mark.parametrize(
    ("streams", "answer", "out"),
    [
        (True, says(SSE, b"data: " + ERROR + b"\n\n"), True),
        (False, says(JSON, WHOLE[:-9]), True),
        (False, says(JSON), True),
        (False, says(JSON, ERROR, status=500), True),
        (False, says(JSON, WHOLE[:20], WHOLE[20:]), False),
        (True, says(SSE, DELTA, b"data: " + ERROR + b"\n\n"), False),  # as far as it goes it has worked
        (False, says(JSON, ERROR, status=400), False),
    ],
)
async def test_one_that_begins_with_an_error_has_failed(
    inside: Inside, streams: bool, answer: list[Event], out: bool
) -> None:
    endpoints = chosen_in(inside, "openai")
    await inside.exchange([*asked(streams), *answer])
    assert (endpoints.is_out(A), endpoints.is_out(B)) == (False, out)
    assert endpoints.own == {A: 100_000}


async def test_only_one_that_serves_a_request_is_let_back(inside: Inside) -> None:
    endpoints = chosen_in(inside, "openai")
    endpoints.failed(B, -10.0)
    await inside.exchange([*asked(True), *says(SSE, DELTA)[:1]])  # no more than a head
    assert endpoints.is_out(B)
    endpoints.failed(B, -10.0)
    await inside.exchange([*asked(), *says(JSON, WHOLE)])
    assert not endpoints.is_out(B)


class Instead(PoolCalls):
    """Another pool of which one endpoint answers this; which one, Envoy may not say."""

    def __init__(self, status: int, data: bytes, endpoint: str = B, reachable: bool = True) -> None:
        self._status, self._data, self._endpoint, self._reachable = status, data, endpoint, reachable
        self.orders: list[str] = []

    @asynccontextmanager
    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[PoolAnswer]:
        self.orders.append(headers[ENDPOINT])
        if not self._reachable:
            raise DependencyError("envoy", "nobody listens")
        yield PoolAnswer(self._status, {"content-type": JSON}, self._chunks(), self._endpoint)

    async def _chunks(self) -> AsyncIterator[bytes]:
        if not self._data:
            raise DependencyError("envoy", "the connection broke")
        yield self._data


@pytest.mark.parametrize(
    ("calls", "out"),
    [
        (Instead(500, b"{}"), True),
        (Instead(200, ERROR), True),
        (Instead(200, b""), True),
        (Instead(200, SECOND), False),
        (Instead(429, b"{}"), False),
        (Instead(503, b"{}", endpoint=""), False),  # nobody was asked, or nobody says who
        (Instead(500, b"{}", reachable=False), False),  # Envoy's fault
    ],
)
async def test_a_pool_asked_instead_hears_who_failed(inside: Inside, calls: Instead, out: bool) -> None:
    endpoints = chosen_in(inside, "triton")
    falls_back_to(inside, calls)
    await inside.exchange([*asked(), *says(JSON, ERROR, status=503)])
    assert calls.orders == [f"{B},{A}"]
    assert (endpoints.is_out(A), endpoints.is_out(B)) == (False, out)
    assert endpoints.own == {A: 100_000}


async def test_a_trial_in_a_pool_asked_instead_is_given_back(inside: Inside) -> None:
    endpoints = chosen_in(inside, "triton")
    endpoints.failed(B, -1000.0)
    falls_back_to(inside, Instead(200, SECOND))
    await inside.exchange([*asked(), *says(JSON, ERROR, status=503)])
    assert not endpoints.is_out(B)


def falls_back_to(inside: Inside, calls: PoolCalls) -> None:
    known = inside.services.catalog
    fallback = Fallback(known.pools["triton"], known.models["writer"])
    catalog = dataclasses.replace(known, fallbacks={"openai": (fallback,)})
    others = OtherPools(catalog, calls, inside.services.metrics, inside.services.endpoints)
    inside.runtime = dataclasses.replace(inside.runtime, other_pools=others)
