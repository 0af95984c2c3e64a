"""What a worker holds for its configuration: stores, encoders, ways to other servers, and what runs beside them.

Owns when each is opened, exchanged for another at a reload, and closed: never while exchanges of before still need it.
Must not know: what policies do with them.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from extproc.clock import Clock
from extproc.config.address import TcpAddress, UnixAddress
from extproc.config.encoder import Encoder as EncoderSettings
from extproc.config.model import GatewayConfig, Redis
from extproc.errors import DependencyError
from extproc.inference.opening import RunningEncoder, RunningVerifier, open_encoder, open_verifier
from extproc.policies import pipeline
from extproc.routing.pool_calls import PoolCalls
from extproc.stores import admissions, limiter
from extproc.stores.admissions import SharedAdmissions
from extproc.stores.answers import RedisAnswers
from extproc.stores.experiments import ExperimentStore, HeardChanges
from extproc.stores.key_cache import CachedKeys
from extproc.stores.keys import KeyHasher, KeyStore
from extproc.stores.limiter import SharedLimiter
from extproc.stores.limits import RedisLimits
from extproc.stores.neighbours import RedisNeighbours
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.spans import NoTracer, Tracer

if TYPE_CHECKING:
    from extproc.edge.otlp import SpanExporter

_IDLE_POLL_S = 1.0


class Closable(Protocol):
    """What is closed once, when nobody uses it any more."""

    async def close(self) -> None: ...


class Loadable(Closable, Protocol):
    """What takes a while until it can be used."""

    async def ready(self) -> None:
        """Returns when it can. Raises DependencyError when it never will."""
        ...


Model = TypeVar("Model", bound=Loadable)


class Tasks:
    """Background work that must not be lost when the coroutine that began it goes away."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def finish(self, timeout_s: float) -> None:
        """Wait for what is running, for at most `timeout_s`."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_s)

    async def cancel(self) -> None:
        """End what is running. What it failed with was its own affair."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class Keys:
    """API keys of one configuration: the store, the cache before it, and the watch that keeps the cache true."""

    def __init__(self, config: GatewayConfig, clock: Clock) -> None:
        hasher = KeyHasher(config.keys.secret)
        self._store = KeyStore(config.redis.url.get_secret_value(), hasher, config.redis.timeout_s)
        self.cache = CachedKeys(self._store, hasher, config.keys.static, clock)
        self._beside = Tasks()
        self._beside.spawn(self._forget_changed())

    async def _forget_changed(self) -> None:
        async for key_hash in self._store.watch():
            self.cache.forget(key_hash)

    async def close(self) -> None:
        await self._beside.cancel()
        await self._store.close()


class Limits:
    """Limits in one Redis: the limiter, and its sign of life."""

    def __init__(self, config: GatewayConfig, clock: Clock, metrics: Metrics) -> None:
        store = RedisLimits(config.redis.url.get_secret_value(), config.redis.timeout_s)
        degraded = functools.partial(metrics.degraded, limiter.NAME)
        self.limiter = SharedLimiter(store, clock, degraded, config.service.workers)
        self._beside = Tasks()
        self._beside.spawn(self.limiter.keep())

    async def close(self) -> None:
        await self._beside.cancel()
        await self.limiter.close()


class Lines:
    """The lines before pools, in one Redis, and what runs beside them."""

    def __init__(self, config: GatewayConfig, clock: Clock, metrics: Metrics) -> None:
        url, degraded = config.redis.url.get_secret_value(), functools.partial(metrics.degraded, admissions.NAME)
        self.admissions = SharedAdmissions(
            url, config.redis.timeout_s, clock, degraded, metrics.admission.used, config.service.workers
        )
        self._beside = Tasks()
        self._beside.spawn(self.admissions.keep())
        self._beside.spawn(self.admissions.listen())

    async def close(self) -> None:
        await self._beside.cancel()
        await self.admissions.close()


class Answers:
    """Kept answers in one Redis, and what runs beside their store while some cache is on."""

    def __init__(self, config: GatewayConfig, clock: Clock, metrics: Metrics) -> None:
        self._wanted = _answers_of(config)
        url, secret, evicted = config.redis.url.get_secret_value(), config.keys.secret, metrics.cache.evicted
        self.store = RedisAnswers(url, config.redis.timeout_s, config.redis.cache_timeout_s, secret, clock, evicted)
        self.neighbours = RedisNeighbours(self.store)
        self._beside = Tasks()
        if pipeline.keeps_answers(config.policies):
            self._beside.spawn(self.store.keep())

    def fit(self, config: GatewayConfig) -> bool:
        """They are what this configuration wants, too."""
        return self._wanted == _answers_of(config)

    async def close(self) -> None:
        await self._beside.cancel()
        await self.store.close()


def _answers_of(config: GatewayConfig) -> tuple[Redis, bytes, bool]:
    return config.redis, config.keys.secret, pipeline.keeps_answers(config.policies)


class Experiments:
    """What is said of experiments while they run, heard from one Redis; nothing where there are no experiments."""

    def __init__(self, config: GatewayConfig, metrics: Metrics) -> None:
        self._wanted = _experiments_of(config)
        store = ExperimentStore(config.redis.url.get_secret_value(), config.redis.timeout_s)
        self.changes = HeardChanges(store, functools.partial(metrics.degraded, "experiments"))
        self._beside = Tasks()

    async def begin(self) -> None:
        """Returns when all is heard that was said until now, or Redis doesn't answer."""
        if self._wanted[1]:
            await self.changes.listen()
            self._beside.spawn(self.changes.keep_listening())

    def fit(self, config: GatewayConfig) -> bool:
        """They are what this configuration wants, too."""
        return self._wanted == _experiments_of(config)

    async def close(self) -> None:
        await self._beside.cancel()
        await self.changes.close()


def _experiments_of(config: GatewayConfig) -> tuple[Redis, bool]:
    return config.redis, bool(config.experiments)


class Calls:
    """Ways to other pools, by where Envoy listens for that; requests on their way may still use an earlier one."""

    def __init__(self) -> None:
        self._opened: dict[TcpAddress | UnixAddress, PoolCalls] = {}

    def at(self, address: TcpAddress | UnixAddress) -> PoolCalls:
        if address not in self._opened:
            self._opened[address] = PoolCalls(address)
        return self._opened[address]

    async def close(self) -> None:
        for calls in self._opened.values():
            await calls.close()


class Traces:
    """Where spans go, while the configuration says so; nothing of it is imported otherwise."""

    def __init__(self, config: GatewayConfig, metrics: Metrics) -> None:
        self.settings = config.telemetry.tracing
        self.tracer: Tracer = NoTracer()
        self._exporter: SpanExporter | None = None
        if self.settings is not None:
            from extproc.edge.otlp import SpanExporter

            self.tracer = self._exporter = SpanExporter(self.settings.otlp_grpc, metrics.spans)

    async def close(self) -> None:
        if self._exporter is not None:
            await self._exporter.close()


class Loaded(Generic[Model]):
    """A model that policies share, as the newest configuration wants it, and those that exchanges may still ask."""

    def __init__(self, opened: Callable[[EncoderSettings], Model | None]) -> None:
        self._open = opened
        self._settings: EncoderSettings | None = None
        self._superseded: list[Model] = []
        self.current: Model | None = None

    async def prepare(self, settings: EncoderSettings | None) -> None:
        """Be what these settings want, ready; nothing for None. Raises DependencyError when there can be none, and then
        the one before stays."""
        if settings == self._settings:
            return
        fresh = None if settings is None else self._open(settings)
        if fresh is not None:
            await _ready(fresh)
        if self.current is not None:
            self._superseded.append(self.current)
        self._settings, self.current = settings, fresh

    def superseded(self) -> list[Model]:
        """Those that no new exchange will ask: to be closed by the caller."""
        given, self._superseded = self._superseded, []
        return given

    async def close(self) -> None:
        for model in (*self.superseded(), self.current):
            if model is not None:
                await model.close()


async def _ready(model: Loadable) -> None:
    try:
        await model.ready()
    except DependencyError:
        await model.close()
        raise


class Resources:
    """All that the configuration in force needs, opened by the constructor; `prepare` before the first use."""

    def __init__(self, config: GatewayConfig, clock: Clock, metrics: Metrics) -> None:
        self._clock, self._metrics = clock, metrics
        self._redis = config.redis
        self._retiring = Tasks()
        self.keys = Keys(config, clock)
        self.limits = Limits(config, clock, metrics)
        self.lines = Lines(config, clock, metrics)
        self.answers = Answers(config, clock, metrics)
        self.traces = Traces(config, metrics)
        self.calls = Calls()
        self._experiments: Experiments | None = None
        self._encoder = Loaded[RunningEncoder](lambda its: open_encoder(its, metrics.encoder, clock))
        self._verifier = Loaded[RunningVerifier](open_verifier)

    @property
    def experiments(self) -> HeardChanges:
        assert self._experiments is not None, "there are none before `prepare`"
        return self._experiments.changes

    @property
    def encoder(self) -> RunningEncoder | None:
        """None where no policy needs it."""
        return self._encoder.current

    @property
    def verifier(self) -> RunningVerifier | None:
        """None where no policy needs it."""
        return self._verifier.current

    async def prepare(self, config: GatewayConfig) -> None:
        """What takes time, or may fail. Raises DependencyError; then what this configuration needs isn't there."""
        await self._verifier.prepare(config.encoder if pipeline.needs_verifier(config.policies) else None)
        await self._encoder.prepare(config.encoder if pipeline.needs_encoder(config.policies) else None)
        if self.encoder is None:
            self._metrics.encoder.provider("")
        old = self._experiments
        if old is None or not old.fit(config):
            self._experiments = Experiments(config, self._metrics)
            await self._experiments.begin()
            if old is not None:
                await old.close()  # what it heard is still there for exchanges of before

    def take_up(self, config: GatewayConfig) -> None:
        """Exchange what another configuration needs otherwise; `prepare` was before."""
        in_use_s = config.gateway.request_timeout_s
        superseded: list[Closable] = [*self._encoder.superseded(), *self._verifier.superseded()]
        for model in superseded:
            self._retire(model, in_use_s)
        self._retire(self.keys, 2 * config.redis.timeout_s)  # exchanges that began before are identified by then
        self.keys = Keys(config, self._clock)
        if config.redis != self._redis:
            limits, lines, self._redis = self.limits, self.lines, config.redis
            self._retire(limits, idle=lambda: limits.limiter.idle)  # exchanges settle where they reserved
            self._retire(lines, idle=lambda: lines.admissions.idle)  # and hand tickets back where they got them
            self.limits = Limits(config, self._clock, self._metrics)
            self.lines = Lines(config, self._clock, self._metrics)
        if not self.answers.fit(config):
            # What is fetched for longer is kept all the same, and led by another meanwhile.
            self._retire(self.answers, in_use_s)
            self.answers = Answers(config, self._clock, self._metrics)
        if config.telemetry.tracing != self.traces.settings:
            self._retire(self.traces, in_use_s)  # of exchanges that last longer nothing is told
            self.traces = Traces(config, self._metrics)

    def _retire(self, old: Closable, after_s: float = 0.0, idle: Callable[[], bool] = lambda: True) -> None:
        self._retiring.spawn(_close_unused(old, after_s, idle))

    async def close(self) -> None:
        await self._retiring.cancel()
        opened: list[Closable | None] = [
            self.keys, self.limits, self.lines, self.answers, self.traces, self._experiments, self._encoder,
            self._verifier, self.calls,
        ]  # fmt: skip
        for one in opened:
            if one is not None:
                await one.close()


async def _close_unused(old: Closable, after_s: float, idle: Callable[[], bool]) -> None:
    try:
        await asyncio.sleep(after_s)
        while not idle():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(_IDLE_POLL_S)
    finally:
        await old.close()
