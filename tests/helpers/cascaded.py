"""A worker's inside in which `talker`, a model of an `openai` pool, is tried before `writer`, one of a Triton's."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from extproc.config.cascades import Cascade as CascadeConfig
from extproc.config.models import ModelPrice
from extproc.config.policy import PolicySettings
from extproc.config.rules import Rule
from extproc.exchange.messages import Event, RequestBody, RequestHeaders, ResponseBody, ResponseHeaders
from extproc.fallback import OtherPools
from extproc.limits import Limiter
from extproc.policies import pipeline
from extproc.policies.route import Settings as RouteSettings
from extproc.routing.catalog import Cascade, Model
from extproc.routing.pool_calls import PoolAnswer, PoolCalls
from tests.helpers.journeys import KEY, Inside

HEAD = {":method": "POST", ":path": "/v1/chat/completions", "authorization": f"Bearer {KEY}", "x-request-id": "r-1"}
CONFIG = CascadeConfig(first="talker", min_logprob=-0.5, hold_tokens=3)
SMALL_PRICE = ModelPrice(input_per_mtok="0.1", output_per_mtok="0.000000333", per_request="0.000000001")
LARGE_PRICE = ModelPrice(input_per_mtok="2.5", output_per_mtok="10", per_request="0.001")
_PIECE = {"text_output": "second", "finish_reason": "stop", "num_input_tokens": 7, "num_output_tokens": 3}


def small_first(
    directory: Path,
    config: CascadeConfig = CONFIG,
    settings: Mapping[str, PolicySettings] | None = None,
    limiter: Limiter | None = None,
) -> Inside:
    """Without a way to ask `writer`."""
    inside = Inside(directory, limiter=limiter)
    known = inside.services.catalog
    prices = {"talker": SMALL_PRICE, "writer": LARGE_PRICE}
    models = {**known.models, **{name: _priced(known.models[name], price) for name, price in prices.items()}}
    cascades = {"frugal": Cascade("frugal", config, models["talker"], "v")}
    catalog = dataclasses.replace(known, models=models, cascades=cascades)
    inside.services = dataclasses.replace(inside.services, catalog=catalog)
    rule = Rule.model_validate({"name": "r", "when": {"models": ("writer",)}, "to": {"cascade": "frugal"}})
    built = pipeline.build({"route": RouteSettings(rules=(rule,)), **(settings or {})}, inside.services)
    inside.runtime = dataclasses.replace(inside.runtime, pipeline=built)
    return inside


def _priced(model: Model, price: ModelPrice) -> Model:
    return dataclasses.replace(model, config=model.config.model_copy(update={"price": price}))


def asks(inside: Inside, calls: PoolCalls) -> None:
    """`writer` can be asked like this."""
    others = OtherPools(inside.services.catalog, calls, inside.services.metrics)
    inside.runtime = dataclasses.replace(inside.runtime, other_pools=others)


class Answers(PoolCalls):
    """Another pool that answers `second`, whole."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    @asynccontextmanager
    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[PoolAnswer]:
        self.bodies.append(body)
        yield PoolAnswer(200, {"content-type": "application/json"}, self._chunks())

    async def _chunks(self) -> AsyncIterator[bytes]:
        yield orjson.dumps(_PIECE)


def asked(streams: bool = False, **more: object) -> list[Event]:
    """The request."""
    body = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}], "stream": streams, **more}
    return [RequestHeaders(HEAD), RequestBody(orjson.dumps(body), last=True)]


def answered(*chunks: bytes, status: int = 200, kind: str = "application/json", last: bool = True) -> list[Event]:
    """What the small model says, in these pieces."""
    head = ResponseHeaders({":status": str(status), "content-type": kind})
    return [head, *map(ResponseBody, chunks), *([ResponseBody(b"", last=True)] if last else [])]
