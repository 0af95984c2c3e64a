"""A worker's inside without gRPC, Envoy or Redis: real configuration, catalog, policies and dialects in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from extproc import gateway_file
from extproc.admission import Admissions, OpenDoor
from extproc.audit.record import AuditTrail, NoTrail
from extproc.caching import AnswerStore
from extproc.clock import Clock
from extproc.config.policy import PolicySettings
from extproc.exchange.messages import Event, Reply
from extproc.inference.interface import Encoder
from extproc.journey import Journey, Runtime
from extproc.limits import Limiter
from extproc.policies import pipeline
from extproc.policies.interface import KeyDirectory, Services
from extproc.routing import catalog
from extproc.routing.pressure import Calm, Pressure
from extproc.stores.answers import RedisAnswers
from extproc.stores.errors import StoreUnavailable
from extproc.stores.key_cache import CachedKeys
from extproc.stores.keys import KeyHasher, KeyRecord
from extproc.stores.local_share import LocalLimiter
from extproc.stores.neighbours import RedisNeighbours
from extproc.telemetry.metrics import Metrics
from tests.helpers.databases import kept

SECRET = "a-secret-of-enough-letters"
KEY = "sk-xp-inside"

CONFIG = """
keys:
  hash_secret: {secret}
  static: {{inside: {{hash: "{key_hash}", team: t, tier: pro, models: [talker, writer]}}}}
models:
  talker:
    pool: openai
    operations: [chat, completions]
    tokenizer: {{type: tiktoken, encoding: cl100k_base}}
    chat_template: chatml
    context_window: 1000
    max_output_tokens: 100
  writer:
    pool: triton
    operations: [chat, completions]
    tokenizer: {{type: tiktoken, encoding: cl100k_base}}
    chat_template: chatml
    context_window: 1000
    max_output_tokens: 100
  secret: {{pool: openai, operations: [chat], context_window: 1000}}
pools:
  openai: {{dialect: openai, model: up, clusters: {{one: {{endpoints: ["127.0.0.1:1"]}}}}}}
  triton: {{dialect: triton-generate, model: up, clusters: {{one: {{endpoints: ["127.0.0.1:2"]}}}}}}
"""


class NoStore:
    """The key store while Redis is away."""

    async def lookup(self, key_hash: str) -> KeyRecord | None:
        raise StoreUnavailable("there is none")


class RecordedUsage:
    """Usage events, kept."""

    def __init__(self) -> None:
        self.open: dict[str, Mapping[str, Any]] = {}
        self.events: list[Mapping[str, Any]] = []
        self.owed: dict[str, Sequence[int]] = {}

    def opened(self, exchange_id: str, facts: Mapping[str, Any]) -> None:
        self.open[exchange_id] = facts

    def closed(self, exchange_id: str, event: Mapping[str, Any], owed: Sequence[int] = ()) -> None:
        self.open.pop(exchange_id, None)
        self.events.append(event)
        if owed:
            self.owed[exchange_id] = owed

    def settled(self, exchange_id: str) -> None:
        self.owed.pop(exchange_id, None)


class Inside:
    """One worker's inside; `settings` replace those of the policies named."""

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, PolicySettings] | None = None,
        limiter: Limiter | None = None,
        answers: AnswerStore | None = None,
        keys: KeyDirectory | None = None,
        pressure: Pressure | None = None,
        encoder: Encoder | None = None,
        audit: AuditTrail | None = None,
        admissions: Admissions | None = None,
    ) -> None:
        hasher = KeyHasher(SECRET.encode())
        path = directory / "gateway.yaml"
        path.write_text(CONFIG.format(secret=SECRET, key_hash=hasher.hash(KEY)))
        config = gateway_file.load(path, {})
        self.registry = CollectorRegistry()
        self.usage = RecordedUsage()
        store = RedisAnswers("redis://127.0.0.1:1", 0.1, 0.05, SECRET.encode(), Clock())
        self.services = Services(
            catalog=catalog.build(config),
            keys=keys or CachedKeys(NoStore(), hasher, config.keys.static, Clock()),
            metrics=Metrics(self.registry),
            usage=self.usage,
            limiter=limiter or LocalLimiter(Clock()),
            pressure=pressure or Calm(),
            config_version=config.version,
            answers=answers or store,
            neighbours=RedisNeighbours(store),
            encoder=encoder,
            audit=audit or NoTrail(),
            admissions=admissions or OpenDoor(),
            databases=kept(),
        )
        built = pipeline.build({**config.policies, **(settings or {})}, self.services)
        self._tasks: set[asyncio.Task[None]] = set()
        self.runtime = Runtime(built, limit_bytes=100_000, spawn=self._spawn)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work))

    async def settle(self) -> None:
        """Wait for the finalizers."""
        await asyncio.gather(*self._tasks)
        self._tasks.clear()

    async def exchange(self, events: Sequence[Event], *, finish: bool = True) -> list[Reply]:
        """The replies to these events; then Envoy hangs up."""
        replies: list[Reply] = []

        async def write(reply: Reply) -> None:
            replies.append(reply)

        journey = Journey(self.runtime, write)
        for event in events:
            if await journey.receive(event):
                break
        if finish:
            journey.cancel()
            await self.settle()
        return replies

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0
