"""A gateway before model servers that fail as a test tells them to, and clients that look on."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openai

from tests.helpers.accounting import Books
from tests.helpers.raw_http import Answer, exchange, request
from tests.helpers.scripted_upstream import Call, Script, ScriptedUpstream, content, stream
from tests.helpers.services import KEY, ServedGateway

CHAT = "/v1/chat/completions"
TENSOR = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}
OVER = ("UPSTREAM_ERROR", "upstream_error")
BUSY = ("UPSTREAM_ERROR", "upstream_overloaded")
ERROR = b'{"error":{"message":"the GPU is on fire","type":"server_error","param":null,"code":null}}'
TWO = (content("one "), content("two"))


@dataclass
class World:
    gateway: ServedGateway
    upstream: ScriptedUpstream
    pair: tuple[ScriptedUpstream, ...]

    @property
    def books(self) -> Books:
        return self.gateway.books

    def ask(self, model: str = "openai", **more: Any) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], **more}
        return exchange(self.gateway.port, request(CHAT, json.dumps(body).encode(), key=KEY))

    def infer(self) -> Answer:
        body = json.dumps({"inputs": [TENSOR]}).encode()
        return exchange(self.gateway.port, request("/v2/models/kserve/infer", body, key=KEY))


class Breaking:
    """A stream of two pieces that breaks when the client has them."""

    def __init__(self, *rest: bytes, then: Script = lambda call: call.chunk(b"")) -> None:
        self.now = threading.Event()
        self._rest = rest
        self._then = then

    def __call__(self, call: Call) -> None:
        stream(*TWO, then=self._break)(call)

    def _break(self, call: Call) -> None:
        assert self.now.wait(10)
        for piece in self._rest:
            call.chunk(piece)
        self._then(call)


def receive(world: World, script: Breaking) -> bytes:
    """What a client gets of it. Raises RemoteProtocolError if it is broken off."""
    world.upstream.script = script
    body = {"model": "openai", "messages": [{"role": "user", "content": "x"}], "stream": True}
    received = b""
    with world.gateway.client() as client, client.stream("POST", CHAT, json=body) as response:
        assert response.status_code == 200
        for data in response.iter_raw():
            received += data
            if b"two" in received:
                script.now.set()
    return received


def read_texts(client: openai.OpenAI, model: str, text: str, on_text: Callable[[list[str]], None]) -> None:
    """Read a stream, telling at every piece what has come so far. Raises what the client raises."""
    texts: list[str] = []
    for piece in client.chat.completions.create(model=model, messages=prompt(text), stream=True):
        texts.append(piece.choices[0].delta.content or "")
        on_text(texts)


def prompt(text: str) -> Any:
    return [{"role": "user", "content": f"[[demo:ttft_ms=0]][[demo:tpot_ms=10]]{text} Tell me something."}]
