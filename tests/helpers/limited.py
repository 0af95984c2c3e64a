"""A gateway with limits: real Envoy, `extproc serve` and Redis, before an upstream that does as the prompt says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from extproc.limits import Charge, Limit, State
from extproc.policies.limit_rules import Rules
from extproc.policies.limit_settings import Settings
from extproc.principal import Principal
from extproc.stack.guardian import Guardian
from extproc.stack.process import Process
from extproc.stores.limits import RedisLimits
from tests.helpers.beside import GatewayBeside, Variables
from tests.helpers.layers import BESIDE, SECRET, TALKER, layered, section, static_keys
from tests.helpers.ports import free_base
from tests.helpers.redis import RedisServer
from tests.helpers.usage import usage_events

MODEL = "talker"
REPOSITORY = pathlib.Path(__file__).parents[2]

CONFIG = """
redis: {timeout_s: 0.25}
models:
  talker:
    context_window: 8000
    max_output_tokens: 1000
    price: {input_per_mtok: "1.5", output_per_mtok: "6", per_request: "0.001", currency: EUR}
"""


@dataclass(frozen=True)
class Answer:
    """What came back. `cut`: the client left before the end."""

    status: int
    headers: httpx.Headers
    text: str
    took_s: float
    cut: bool = False

    @property
    def code(self) -> str:
        """The error's code, empty without one."""
        return str(json.loads(self.text)["error"]["code"]) if self.status >= 400 else ""

    @property
    def events(self) -> list[dict[str, Any]]:
        """A stream's events, [DONE] apart."""
        lines = [line.removeprefix("data: ") for line in self.text.split("\n") if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


class Limited:
    """Started by its constructor; close it. Keys are `{id: tier}`; a key's text is its id.

    `policies` are more of them beside `limit`, whose section `policy` is; `upstream` is the port of one of the test's
    own.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        keys: Mapping[str, str],
        policy: str,
        *,
        workers: int = 1,
        policies: str = "",
        upstream: int | None = None,
    ) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "redis").mkdir()
        self.keys = dict(keys)
        with contextlib.ExitStack() as undo:
            self.redis = RedisServer(directory / "redis")
            undo.callback(self.redis.close)
            self._guardian = Guardian()
            undo.callback(self._guardian.close)
            port = self._start_upstream(directory, undo) if upstream is None else upstream
            static = static_keys(**{key: {"team": "t", "tier": tier} for key, tier in keys.items()})
            own = section("policies", section("limit", policy)), section("policies", policies)
            text = layered(BESIDE, TALKER, CONFIG, static, *own)
            given = {"REDIS_URL": self.redis.url, "EXTPROC_KEY_SECRET": SECRET, "UPSTREAM_PORT": str(port)}
            self.gateway = GatewayBeside(Variables(given), directory, text, workers=workers)
            self._undo = undo.pop_all()

    def _start_upstream(self, directory: pathlib.Path, undo: contextlib.ExitStack) -> int:
        port = free_base()
        command = (sys.executable, "-m", "tests.helpers.llm", str(port))
        environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
        upstream = Process("upstream", command, environment, directory / "upstream.log", self._guardian)
        upstream.start()
        undo.callback(upstream.kill)
        upstream.wait_ready(lambda: _listens(port), 10.0, threading.Event())
        return port

    def close(self) -> None:
        self.gateway.close()
        self._undo.close()

    def client(self, timeout_s: float = 30.0) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        base = f"http://127.0.0.1:{self.gateway.ports.gateway}"
        return httpx.AsyncClient(base_url=base, timeout=timeout_s, limits=limits)

    def events(self) -> list[dict[str, Any]]:
        """The usage events so far."""
        return usage_events(self.gateway.directory / "service.log")

    def applied(self, key: str) -> dict[str, tuple[Limit, str]]:
        """The limits that hold for a key, by name, with the names of their counters."""
        settings = self.gateway.load().policies["limit"]
        assert isinstance(settings, Settings)
        principal = Principal(key, "t", self.keys[key], frozenset({"*"}))
        return {one.limit.name: (one.limit, one.key) for one in Rules(settings).applied(principal, MODEL)}

    async def look(self, key: str, name: str) -> State:
        """One of a key's limits as it is in Redis now."""
        limit, counter = self.applied(key)[name]
        store = RedisLimits(self.redis.url, 5.0)
        try:
            return (await store.reserve("", [Charge(counter, limit, 0)], 0)).states[0]
        finally:
            await store.close()

    async def used(self, key: str, name: str) -> int:
        """How much of a limit is used, open reservations included."""
        return self.applied(key)[name][0].amount - (await self.look(key, name)).remaining


async def ask(
    client: httpx.AsyncClient,
    key: str,
    prompt: str = "Hi",
    *,
    leave_after: int | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Answer:
    """One chat; the client leaves after so many pieces."""
    began_s = asyncio.get_running_loop().time()
    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more}
    headers = {"authorization": f"Bearer {key}", **(headers or {})}
    text, cut = "", False
    async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        try:
            pieces = 0
            async for piece in answer.aiter_text():
                text += piece
                pieces += 1
                if leave_after is not None and pieces >= leave_after:
                    cut = True
                    break
        except httpx.RemoteProtocolError:
            cut = True
    took_s = asyncio.get_running_loop().time() - began_s
    return Answer(answer.status_code, answer.headers, text, took_s, cut)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
