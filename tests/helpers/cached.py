"""A gateway with a cache: real Envoy, service and a Redis of its own, before an upstream that a test scripts."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil

from tests.helpers.beside import GatewayBeside, Variables
from tests.helpers.layers import BESIDE, SECRET, TALKER, layered, section, static_keys
from tests.helpers.processes import wait_until
from tests.helpers.redis import RedisServer
from tests.helpers.scripted_upstream import Call, ScriptedUpstream
from tests.helpers.usage import usage_events

MODEL = "talker"

CONFIG = """
redis: {cache_timeout_s: 2} # a test machine can be busy
models:
  talker:
    operations: [chat, completions, embeddings]
    context_window: 100000
    price: {input_per_mtok: "1", output_per_mtok: "1", currency: EUR}
  sampler: {pool: up, operations: [chat], context_window: 8000}
  never: {pool: up, operations: [chat], context_window: 8000}
  uncounted: {pool: up, operations: [chat, embeddings], context_window: 8000}
"""
POLICIES = """
cache:
  mode: enforce
  models: {sampler: {sampled: true}, never: {enabled: false}}
"""
LIMITS = """
limit:
  keys: {moe: {requests_per_minute: 4, tokens_per_minute: 100000}}
"""
KEYS = {"ann": "red", "bob": "red", "eve": "blue", "moe": "green"}
"""Teams by key; a key's text is its id."""


class Cached:
    """Started by its constructor; close it."""

    def __init__(self, directory: pathlib.Path, policies: str = POLICIES, *, workers: int = 1, more: str = "") -> None:
        (directory / "redis").mkdir(parents=True)
        self._clients = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            self.redis = RedisServer(directory / "redis")
            undo.callback(self.redis.close)
            self.upstream = ScriptedUpstream()
            undo.callback(self.upstream.close)
            given = {"REDIS_URL": self.redis.url, "EXTPROC_KEY_SECRET": SECRET}
            given["UPSTREAM_PORT"] = str(self.upstream.port)
            keys = static_keys(**{key: {"team": team, "tier": "enterprise"} for key, team in KEYS.items()})
            text = layered(BESIDE, TALKER, CONFIG, keys, section("policies", policies), more)
            self.gateway = GatewayBeside(Variables(given), directory, text, workers=workers)
            self._undo = undo.pop_all()

    def close(self) -> None:
        self._clients.close()
        self.gateway.close()
        self._undo.close()

    def openai(self, key: str = "ann") -> openai.OpenAI:
        """The official client, which doesn't try again what failed."""
        client = openai.OpenAI(base_url=self.gateway.base_url, api_key=key, max_retries=0, timeout=30)
        self._clients.callback(client.close)
        return client

    def http(self, key: str = "ann", timeout_s: float = 30.0) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        headers = {"authorization": f"Bearer {key}"}
        base = self.gateway.base_url
        return httpx.AsyncClient(base_url=base, headers=headers, timeout=timeout_s, limits=limits)

    @property
    def calls(self) -> int:
        """So often the upstream was asked."""
        return len(self.upstream.seen)

    def settled(self) -> None:
        """Wait until every request so far is accounted for, and what is to be kept of it is kept."""
        assert wait_until(lambda: self.metric("extproc_streams_in_flight") == 0)

    def metric(self, name: str, label: str = "") -> float:
        """The sum of all series of this name that have this label."""
        text = httpx.get(f"http://127.0.0.1:{self.gateway.ports.service_admin}/metrics").text
        lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
        return sum(float(value) for series, _, value in lines if label in series)

    def workers(self) -> list[psutil.Process]:
        return [
            child for child in psutil.Process(self.gateway.service.pid).children() if "extproc.app" in child.cmdline()
        ]

    def events(self) -> list[dict[str, Any]]:
        """The usage events so far."""
        return usage_events(self.gateway.directory / "service.log")

    def cli(self, *arguments: str) -> str:
        """What `extproc cache ...` prints."""
        command = (sys.executable, "-m", "extproc", "cache", *arguments, "--config", str(self.gateway.config_path))
        done = subprocess.run(command, env=self.gateway.environment, capture_output=True, text=True, check=True)
        return done.stdout


@contextlib.contextmanager
def cached(directory: pathlib.Path, policies: str = POLICIES, *, workers: int = 1, more: str = "") -> Iterator[Cached]:
    """`more` is laid over the configuration."""
    running = Cached(directory, policies, workers=workers, more=more)
    try:
        yield running
    finally:
        running.close()


def chunk(delta: dict[str, Any], finish_reason: str | None = None, index: int = 0, **more: Any) -> bytes:
    """One event of a streamed chat."""
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason, **more}
    body = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def usage_chunk(prompt: int, completion: int) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    body = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [], "usage": usage}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def choice(text: str | None, index: int = 0, finish_reason: str = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    return {"index": index, "message": message, "finish_reason": finish_reason, **more}


def whole(*choices: dict[str, Any], prompt: int = 9, completion: int = 2) -> bytes:
    """A whole chat answer."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "up", "choices": choices, "usage": usage}
    return json.dumps(body).encode()


def embed(call: Call) -> None:
    """A vector for each input, by which it can be told: its length, and how many there were."""
    inputs = json.loads(call.seen.body)["input"]
    inputs = [inputs] if isinstance(inputs, str) else inputs
    data = [
        {"object": "embedding", "index": at, "embedding": [float(len(text)), 0.1, float(len(inputs))]}
        for at, text in enumerate(inputs)
    ]
    usage = {"prompt_tokens": 100 * len(inputs), "total_tokens": 100 * len(inputs)}
    body = {"object": "list", "model": "up", "data": data, "usage": usage}
    call.answer(200, json.dumps(body).encode())
