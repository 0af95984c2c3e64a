"""One worker's inside with `redact` in force, and a model server that a test plays itself."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from extproc.audit.record import AuditTrail, Entry
from extproc.detection.spans import Evidence, Span
from extproc.errors import DependencyError
from extproc.exchange.messages import (
    BodyReply,
    HeadersReply,
    ImmediateReply,
    Reply,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)
from extproc.inference.interface import Encoder, Encoding
from extproc.journey import Journey
from extproc.policies.pipeline import SETTINGS
from tests.helpers.journeys import KEY, Inside

HASH_SECRET = "a-secret-for-hashes"
MAIL = "ann.lee@example.com"
T = TypeVar("T")
_numbers = itertools.count()


@dataclass(frozen=True)
class Exchanged:
    """What came of one request: what the model server got, and what the client got."""

    forwarded: dict[str, Any]
    status: int
    body: bytes
    replies: Sequence[Reply]

    @property
    def text(self) -> str:
        """The first choice's text, of a whole answer or a stream."""
        text: str = self.joined()[0]["text"]
        return text

    @property
    def arguments(self) -> list[str]:
        """The first choice's tool calls."""
        return [call["function"]["arguments"] for call in self.joined()[0]["calls"]]

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error

    @property
    def events(self) -> list[dict[str, Any]]:
        """A stream's events, [DONE] apart."""
        blocks = self.body.decode().split("\n\n")
        return [json.loads(block[6:]) for block in blocks if block.startswith("data: {")]

    def joined(self) -> dict[int, dict[str, Any]]:
        """Each choice put together as OpenAI's clients do."""
        choices: dict[int, dict[str, Any]] = {}
        if self.body.startswith(b"data:"):
            pieces = [(choice, choice.get("delta", choice)) for event in self.events for choice in event["choices"]]
        else:
            pieces = [(choice, choice.get("message", choice)) for choice in json.loads(self.body)["choices"]]
        for choice, piece in pieces:
            joined = choices.setdefault(choice["index"], {"text": "", "reasoning": "", "calls": [], "finish": None})
            joined["text"] += piece.get("content") or piece.get("text") or ""
            joined["reasoning"] += piece.get("reasoning_content") or ""
            for position, call in enumerate(piece.get("tool_calls") or ()):
                index = call.get("index", position)
                while len(joined["calls"]) <= index:
                    joined["calls"].append({"function": {"name": "", "arguments": ""}})
                function = call.get("function") or {}
                joined["calls"][index]["function"]["arguments"] += function.get("arguments") or ""
                joined["calls"][index]["function"]["name"] += function.get("name") or ""
            joined["finish"] = choice.get("finish_reason") or joined["finish"]
        return choices


class Names:
    """An encoder that knows Ann and Paris, or that fails. Its windows are of 50 letters."""

    def __init__(self, error: DependencyError | None = None) -> None:
        self._error = error

    def windows(self, text: str) -> Sequence[tuple[int, int]]:
        return [(start, min(start + 50, len(text))) for start in range(0, len(text), 50)]

    async def encode(self, texts: Sequence[str], deadline_s: float) -> Sequence[Encoding]:
        if self._error is not None:
            raise self._error
        return [Encoding(b"", spans=tuple(_names(text))) for text in texts]


def _names(text: str) -> Iterator[Span]:
    for name, entity, confidence in (("Ann", "PERSON", 0.9), ("Paris", "LOCATION", 0.3)):
        for match in re.finditer(rf"\b{name}\b", text):
            yield Span(match.start(), match.end(), entity, confidence, Evidence("encoder", entity))


class Records:
    """An audit trail that is kept in memory."""

    available = True

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def record(self, entry: Entry) -> None:
        self.entries.append(entry)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that waits for nothing, as all do that look for patterns alone."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise AssertionError("it waits")


class Redacting(Inside):
    """`policy` is the section `policies.redact`; enforced unless it says otherwise."""

    def __init__(
        self,
        directory: Path,
        limit: dict[str, Any] | None = None,
        encoder: Encoder | None = None,
        audit: AuditTrail | None = None,
        **policy: Any,
    ) -> None:
        settings = {"redact": {"mode": "enforce", "hash_secret": HASH_SECRET, **policy}, "limit": limit or {}}
        models = {name: SETTINGS[name].model_validate_json(orjson.dumps(own)) for name, own in settings.items()}
        super().__init__(directory, models, encoder=encoder, audit=audit)

    async def ask(
        self,
        answer: Callable[[dict[str, Any]], Iterable[bytes]] | None = None,
        path: str = "/v1/chat/completions",
        status: int = 200,
        **body: Any,
    ) -> Exchanged:
        """`answer` makes the model server's bytes, piece by piece, from what it was sent. By default it says ok."""
        encoded = orjson.dumps({"model": "talker", **body})
        return await self.send(encoded, answer, path, status, stream=bool(body.get("stream")))

    async def send(
        self,
        body: bytes,
        answer: Callable[[dict[str, Any]], Iterable[bytes]] | None = None,
        path: str = "/v1/chat/completions",
        status: int = 200,
        *,
        stream: bool = False,
    ) -> Exchanged:
        """The same with any body."""
        replies: list[Reply] = []

        async def write(reply: Reply) -> None:
            replies.append(reply)

        journey = Journey(self.runtime, write)
        headers = {":method": "POST", ":path": path, "authorization": f"Bearer {KEY}"}
        await journey.receive(RequestHeaders({**headers, "x-request-id": f"redact-{next(_numbers)}"}))
        over = await journey.receive(RequestBody(body, last=True))
        forwarded = {} if over else json.loads(_body(replies, of_request=True))
        if not over:
            content_type = "text/event-stream" if stream else "application/json"
            await journey.receive(ResponseHeaders({":status": str(status), "content-type": content_type}))
            pieces = [whole_chat("ok")] if answer is None else answer(forwarded)
            for piece in pieces:
                over = over or await journey.receive(ResponseBody(piece))
            if not over:
                await journey.receive(ResponseBody(b"", last=True))
        journey.cancel()
        await self.settle()
        last = replies[-1]
        if isinstance(last, ImmediateReply):
            return Exchanged(forwarded, last.status, last.body, replies)
        return Exchanged(forwarded, status, _body(replies, of_request=False), replies)


def _body(replies: Sequence[Reply], *, of_request: bool) -> bytes:
    parts = []
    for reply in replies:
        if isinstance(reply, HeadersReply) and reply.of_request is of_request:
            parts.append(reply.body or b"")
        elif isinstance(reply, BodyReply) and reply.of_request is of_request:
            parts.append(reply.data)
    return b"".join(parts)


def whole_chat(text: str | None = "", **message: Any) -> bytes:
    """A whole answer of one choice."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    return json.dumps({"id": "x", "model": "up", "choices": [choice], "usage": usage}).encode()


def event(index: int = 0, finish_reason: str | None = None, logprobs: Any = None, **delta: Any) -> bytes:
    """One event of a streamed chat."""
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
    return b"data: " + json.dumps({"id": "x", "model": "up", "choices": [choice]}).encode() + b"\n\n"


def tool_call(arguments: str, index: int = 0, **more: Any) -> dict[str, Any]:
    """A fragment of a streamed tool call."""
    return {"index": index, "function": {"arguments": arguments}, **more}


USAGE = b'data: {"id":"x","model":"up","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"


def streamed(*texts: str, finish_reason: str = "stop") -> list[bytes]:
    """A streamed answer of one choice."""
    begin = event(role="assistant", content="")
    return [begin, *(event(content=text) for text in texts), event(0, finish_reason), DONE]


def asked(text: str) -> list[dict[str, Any]]:
    """A chat of one user turn."""
    return [{"role": "user", "content": text}]


def sent(forwarded: dict[str, Any]) -> str:
    """What the model server reads in the last message."""
    content: str = forwarded["messages"][-1]["content"]
    return content


def finish(reason: str = "stop", index: int = 0) -> bytes:
    """The last event of a choice."""
    return event(index, reason)
