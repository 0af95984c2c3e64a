"""Kept answers in memory, and exchanges before them: so that thousands can be tried in a second."""

from __future__ import annotations

from typing import Any, cast

import orjson
import redis.asyncio

from extproc.caching import Absent, EntryName, Found, Outcome, Quota
from extproc.exchange.messages import (
    Event,
    HeadersReply,
    ImmediateReply,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)
from extproc.principal import Principal
from extproc.stores.flights import Flights
from extproc.stores.seal import Sealer
from tests.helpers.journeys import Inside


class Shelf:
    """An `AnswerStore` in memory."""

    def __init__(self) -> None:
        self.kept: dict[EntryName, bytes] = {}
        self._sealer = Sealer(b"secret")
        self._flights = Flights(cast("redis.asyncio.Redis", None), 0.0)  # it listens to nobody

    def digest(self, data: bytes) -> str:
        return self._sealer.digest(data)

    async def get(self, name: EntryName, token: str = "") -> Found | Absent:
        body = self.kept.get(name)
        return Absent(leads=bool(token)) if body is None else Found(body, 0.0)

    async def put(self, name: EntryName, body: bytes, ttl_s: float, quota: Quota) -> None:
        self.kept[name] = body

    async def delete(self, name: EntryName) -> None:
        self.kept.pop(name, None)

    async def release(self, name: EntryName, token: str, outcome: Outcome) -> None:
        pass

    def follow(self, name: EntryName) -> Any:
        return self._flights.follow(str(name))


class Keys:
    """Every key is known: `team/person/tier`."""

    degraded = False

    async def authenticate(self, key: str) -> Principal:
        team, person, tier = key.split("/")
        return Principal(f"{team}-{person}", team, tier, frozenset({"*"}))


async def answered(inside: Inside, asked: dict[str, Any], said: str) -> tuple[str, str]:
    """What the client is told, and how it came; `said` is what a model would say now."""
    head = {
        ":method": "POST", ":path": "/v1/chat/completions", "authorization": f"Bearer {asked['key']}",
        "x-request-id": "r", "x-extproc-cache-namespace": asked["namespace"],
    }  # fmt: skip
    messages = [{"role": "system", "content": asked["system"]}, {"role": "user", "content": asked["question"]}]
    body = {"model": asked["model"], "temperature": 0, "messages": messages, "stream": asked["stream"]}
    body |= {name: asked[name] for name in ("seed", "user") if name in asked}
    replies = await inside.exchange(
        [RequestHeaders(head), RequestBody(orjson.dumps(body), last=True), *model_answers(asked, said)]
    )
    last = replies[-1]
    if isinstance(last, ImmediateReply):
        assert last.status == 200
        return last.body.decode(), "hit"
    text = "".join(
        ((reply.body or b"") if isinstance(reply, HeadersReply) else getattr(reply, "data", b"")).decode()
        for reply in replies
        if not getattr(reply, "of_request", False)
    )
    return text, "miss"


def model_answers(asked: dict[str, Any], said: str) -> list[Event]:
    """In the dialect of the model's pool."""
    if asked["model"] == "talker":
        choice = {"index": 0, "finish_reason": "stop", "delta" if asked["stream"] else "message": {"content": said}}
        data = orjson.dumps({"id": "u", "model": "up", "choices": [choice]})
        data = b"data: %b\n\ndata: [DONE]\n\n" % data if asked["stream"] else data
    else:
        data = orjson.dumps({"text_output": said, "finish_reason": "stop"})
        data = b"data: %b\n\n" % data if asked["stream"] else data
    kind = "text/event-stream" if asked["stream"] else "application/json"
    return [ResponseHeaders({":status": "200", "content-type": kind}), ResponseBody(data, last=True)]
