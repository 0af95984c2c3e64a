"""The composition root of one worker process: builds everything from gateway.yaml, runs it, reloads it, ends it.

The only file that imports everything. Start: configuration, stores, pipeline, gRPC server. End, in the reverse order:
server drained, finalizers finished, stores closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from extproc import gateway_file
from extproc.audit.writer import Trail, trail_of
from extproc.clock import Clock
from extproc.config.address import TcpAddress, UnixAddress
from extproc.config.encoder import Encoder as EncoderSettings
from extproc.config.model import GatewayConfig, Redis
from extproc.edge.server import Server, server_of
from extproc.edge.service import Service, Write
from extproc.errors import ConfigError, DependencyError
from extproc.fallback import OtherPools
from extproc.inference.interface import Encoder, PairVerifier
from extproc.inference.opening import RunningEncoder, RunningVerifier, open_encoder, open_verifier
from extproc.journey import Journey, Runtime
from extproc.policies import pipeline
from extproc.policies.interface import Services
from extproc.routing import catalog
from extproc.routing.load_board import LoadBoard, board_of
from extproc.routing.pool_calls import PoolCalls
from extproc.stores import admissions, limiter
from extproc.stores.admissions import SharedAdmissions
from extproc.stores.answers import RedisAnswers
from extproc.stores.databases import databases_of
from extproc.stores.experiments import ExperimentStore, HeardChanges
from extproc.stores.key_cache import CachedKeys
from extproc.stores.keys import KeyHasher, KeyStore
from extproc.stores.limiter import SharedLimiter
from extproc.stores.limits import RedisLimits
from extproc.stores.neighbours import RedisNeighbours
from extproc.stores.spool import spool_of_process
from extproc.telemetry import logs
from extproc.telemetry.metrics import RUN_DIR, Metrics, pin_process
from extproc.telemetry.open_exchanges import OpenExchanges, path_of
from extproc.telemetry.spans import NoTracer, Tracer
from extproc.telemetry.usage import UsageLog

if TYPE_CHECKING:
    from extproc.edge.otlp import SpanExporter

_log = logging.getLogger(__name__)


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


class Keys:
    """API keys of one configuration: the store, the cache before it, and the watch that keeps the cache true."""

    def __init__(self, config: GatewayConfig, clock: Clock) -> None:
        hasher = KeyHasher(config.keys.secret)
        self._store = KeyStore(config.redis.url.get_secret_value(), hasher, config.redis.timeout_s)
        self.cache = CachedKeys(self._store, hasher, config.keys.static, clock)
        self._watch = asyncio.get_running_loop().create_task(self._forget_changed())

    async def _forget_changed(self) -> None:
        async for key_hash in self._store.watch():
            self.cache.forget(key_hash)

    async def close(self) -> None:
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch
        await self._store.close()


class Limits:
    """Limits in one Redis: the limiter, and its sign of life."""

    def __init__(self, config: GatewayConfig, clock: Clock, metrics: Metrics) -> None:
        self.redis = config.redis
        store = RedisLimits(config.redis.url.get_secret_value(), config.redis.timeout_s)
        self.limiter = SharedLimiter(
            store, clock, functools.partial(metrics.degraded, limiter.NAME), config.service.workers
        )
        self._keep = asyncio.get_running_loop().create_task(self.limiter.keep())

    async def close(self) -> None:
        self._keep.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keep
        await self.limiter.close()


class Lines:
    """The lines before pools, in one Redis, and what runs beside them."""

    def __init__(self, config: GatewayConfig, clock: Clock, metrics: Metrics) -> None:
        self.redis = config.redis
        url, degraded = config.redis.url.get_secret_value(), functools.partial(metrics.degraded, admissions.NAME)
        self.admissions = SharedAdmissions(
            url, config.redis.timeout_s, clock, degraded, metrics.admission.used, config.service.workers
        )
        loop = asyncio.get_running_loop()
        self._beside = [loop.create_task(work) for work in (self.admissions.keep(), self.admissions.listen())]

    async def close(self) -> None:
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self.admissions.close()


class Answers:
    """Kept answers in one Redis, and what runs beside their store while some cache is on."""

    def __init__(self, config: GatewayConfig, clock: Clock, metrics: Metrics) -> None:
        self.redis, self._on = config.redis, pipeline.keeps_answers(config.policies)
        url, secret, evicted = config.redis.url.get_secret_value(), config.keys.secret, metrics.cache.evicted
        self.store = RedisAnswers(url, config.redis.timeout_s, config.redis.cache_timeout_s, secret, clock, evicted)
        self.neighbours = RedisNeighbours(self.store)
        self._secret = secret
        self._keep = asyncio.get_running_loop().create_task(self.store.keep()) if self._on else None

    def fit(self, config: GatewayConfig) -> bool:
        """They are what this configuration wants, too."""
        wanted = (config.redis, config.keys.secret, pipeline.keeps_answers(config.policies))
        return wanted == (self.redis, self._secret, self._on)

    async def close(self) -> None:
        if self._keep is not None:
            self._keep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keep
        await self.store.close()


class Experiments:
    """What is said of experiments while they run, heard from one Redis; nothing where there are no experiments."""

    def __init__(self, config: GatewayConfig, metrics: Metrics) -> None:
        self._wanted = _experiments_of(config)
        store = ExperimentStore(config.redis.url.get_secret_value(), config.redis.timeout_s)
        self.changes = HeardChanges(store, functools.partial(metrics.degraded, "experiments"))
        self._keep: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Returns when all is heard that was said until now, or Redis doesn't answer."""
        if self._wanted[1]:
            await self.changes.listen()
            self._keep = asyncio.get_running_loop().create_task(self.changes.keep_listening())

    def fit(self, config: GatewayConfig) -> bool:
        """They are what this configuration wants, too."""
        return self._wanted == _experiments_of(config)

    async def close(self) -> None:
        if self._keep is not None:
            self._keep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keep
        await self.changes.close()


def _experiments_of(config: GatewayConfig) -> tuple[Redis, bool]:
    return config.redis, bool(config.experiments)


class Encoders:
    """The encoder of the configuration in force, and those before it, which requests on their way may still ask."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock, self._metrics = clock, metrics.encoder
        self._settings: EncoderSettings | None = None
        self._current: RunningEncoder | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    async def take_up(self, config: GatewayConfig) -> Encoder | None:
        """What this configuration's policies share, ready; None when none of them needs it. Raises DependencyError
        when there can be none, and then the one before stays."""
        settings = config.encoder if pipeline.needs_encoder(config.policies) else None
        if settings == self._settings:
            return self._current
        fresh = None if settings is None else open_encoder(settings, self._metrics, self._clock)
        if fresh is None:
            self._metrics.provider("")
        else:
            await _ready_or_closed(fresh)
        if self._current is not None:
            task = asyncio.get_running_loop().create_task(_retired(self._current, config.gateway.request_timeout_s))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        self._settings, self._current = settings, fresh
        return fresh

    async def close(self) -> None:
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        if self._current is not None:
            await self._current.close()


class Verifiers:
    """The pair verifier, from when a configuration first needs it; requests on their way may still ask it."""

    def __init__(self) -> None:
        self._settings: EncoderSettings | None = None
        self._opened: list[RunningVerifier] = []

    async def take_up(self, config: GatewayConfig) -> PairVerifier | None:
        """None when no policy needs it. Raises DependencyError when there can be none."""
        if not pipeline.needs_verifier(config.policies):
            return None
        if self._settings != config.encoder:
            fresh = open_verifier(config.encoder)
            await _ready_or_closed(fresh)
            self._opened.append(fresh)
            self._settings = config.encoder
        return self._opened[-1]

    async def close(self) -> None:
        for opened in self._opened:
            await opened.close()


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


async def _ready_or_closed(encoder: RunningEncoder | RunningVerifier) -> None:
    try:
        await encoder.ready()
    except DependencyError:
        await encoder.close()
        raise


async def _retired(encoder: RunningEncoder, after_s: float) -> None:
    try:
        await asyncio.sleep(after_s)
    finally:
        await encoder.close()


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


class Worker:
    """One worker: the runtime of the configuration in force, and the server that gives it to each new exchange."""

    def __init__(self, config_path: Path, index: int, run_dir: str) -> None:
        self._path = config_path
        self._index = index
        self._run_dir = run_dir
        self._clock = Clock()
        self._metrics = Metrics(CollectorRegistry())
        self._tasks = Tasks()
        self._loads = LoadBoard(board_of(run_dir))
        self._databases = databases_of(os.environ, run_dir)
        self._usage: UsageLog
        self._audit: Trail
        self._server: Server
        self._keys: Keys
        self._limits: Limits
        self._lines: Lines
        self._answers: Answers
        self._traces: Traces
        self._experiments: Experiments
        self._encoders = Encoders(self._clock, self._metrics)
        self._verifiers = Verifiers()
        self._calls = Calls()
        self._reloading = asyncio.Lock()
        self._catalog: catalog.Catalog | None = None
        self._runtime: Runtime

    async def run(self, supervisor: socket.socket) -> None:
        """Serve until SIGTERM or SIGINT, or until the supervisor is gone; tell it once streams are accepted."""
        config = gateway_file.load(self._path)
        logs.configure(config.telemetry.log_level)
        self._server = server_of(config.service.server, Service(self._open, self._metrics.protocol_error))
        limit_bytes = config.ledger.spool_limit_bytes
        spool = spool_of_process(f"worker-{self._index}", limit_bytes, self._metrics.ledger_lost)
        self._usage = UsageLog(sys.stdout.fileno(), OpenExchanges(path_of(self._run_dir, self._index)), spool)
        self._audit = trail_of(config.audit, self._metrics)
        self._keys = Keys(config, self._clock)
        self._limits = Limits(config, self._clock, self._metrics)
        self._lines = Lines(config, self._clock, self._metrics)
        self._answers = Answers(config, self._clock, self._metrics)
        self._traces = Traces(config, self._metrics)
        self._experiments = Experiments(config, self._metrics)
        await self._experiments.begin()
        self._runtime = self._build(config, await self._encoders.take_up(config), await self._verifiers.take_up(config))
        looking = asyncio.get_running_loop().create_task(self._loads.keep_looking())
        await self._server.start(config.service.addresses[self._index % len(config.service.addresses)])
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tasks.spawn(self._reload()))
        loop.add_reader(supervisor, stop.set)  # it never writes: this is its end
        supervisor.send(b"1")
        await stop.wait()
        loop.remove_reader(supervisor)
        looking.cancel()
        await self._server.drain(config.service.drain_timeout_s, config.service.notice_s)
        await self._tasks.finish(pipeline.CLOSE_DEADLINE_S)
        await self._keys.close()
        await self._limits.close()
        await self._lines.close()
        await self._answers.close()
        await self._traces.close()
        await self._experiments.close()
        await self._encoders.close()
        await self._verifiers.close()
        await self._calls.close()
        await asyncio.to_thread(self._audit.close, pipeline.CLOSE_DEADLINE_S)

    def _open(self, write: Write, traceparent: Callable[[], str]) -> Journey:
        return Journey(self._runtime, write, traceparent)

    def _build(self, config: GatewayConfig, encoder: Encoder | None, verifier: PairVerifier | None) -> Runtime:
        self._catalog = catalog.build(config, self._catalog)
        services = Services(
            catalog=self._catalog,
            keys=self._keys.cache,
            identities=config.identities,
            metrics=self._metrics,
            usage=self._usage,
            limiter=self._limits.limiter,
            admissions=self._lines.admissions,
            pressure=self._loads,
            experiments=self._experiments.changes,
            config_version=config.version,
            answers=self._answers.store,
            neighbours=self._answers.neighbours,
            answers_version=pipeline.answers_version(config.policies),
            databases=self._databases.obtain,
            encoder=encoder,
            verifier=verifier,
            audit=self._audit,
            tracer=self._traces.tracer,
            clock=self._clock,
        )
        built = pipeline.build(config.policies, services)
        address = config.fallback_address
        others = None if address is None else OtherPools(services.catalog, self._calls.at(address), self._metrics)
        return Runtime(built, config.gateway.max_body_bytes, self._tasks.spawn, others)

    async def _reload(self) -> None:
        """Take up the file as it is now; if it is bad, the configuration in force stays."""
        async with self._reloading:
            try:
                config = gateway_file.load(self._path)
                await asyncio.to_thread(pipeline.prepare, config.policies, self._databases.obtain)
                verifier = await self._verifiers.take_up(config)
                encoder = await self._encoders.take_up(config)
                if not self._experiments.fit(config):
                    old, self._experiments = self._experiments, Experiments(config, self._metrics)
                    await self._experiments.begin()
                    await old.close()  # what it heard is still there for exchanges of before
            except ConfigError as error:
                self._refused([str(problem) for problem in error.problems])
            except DependencyError as error:
                self._refused([str(error)])
            else:
                self._take_up(config, encoder, verifier)

    def _refused(self, problems: list[str]) -> None:
        self._metrics.reloaded("refused")
        _log.error("new configuration refused", extra={"problems": problems})

    def _take_up(self, config: GatewayConfig, encoder: Encoder | None, verifier: PairVerifier | None) -> None:
        old_keys, self._keys = self._keys, Keys(config, self._clock)
        if config.redis != self._limits.redis:
            self._tasks.spawn(self._retire_limits(self._limits))
            self._limits = Limits(config, self._clock, self._metrics)
            self._tasks.spawn(self._retire_lines(self._lines))
            self._lines = Lines(config, self._clock, self._metrics)
        if not self._answers.fit(config):
            self._tasks.spawn(self._retire_answers(self._answers, config.gateway.request_timeout_s))
            self._answers = Answers(config, self._clock, self._metrics)
        if config.telemetry.tracing != self._traces.settings:
            self._tasks.spawn(self._retire_traces(self._traces, config.gateway.request_timeout_s))
            self._traces = Traces(config, self._metrics)
        self._runtime = self._build(config, encoder, verifier)
        self._tasks.spawn(self._retire(old_keys, config.redis.timeout_s))
        self._metrics.reloaded("taken")
        _log.info("configuration in force", extra={"version": config.version})

    async def _retire(self, keys: Keys, timeout_s: float) -> None:
        await asyncio.sleep(2 * timeout_s)  # exchanges that began before are identified by then
        await keys.close()

    async def _retire_answers(self, answers: Answers, after_s: float) -> None:
        await asyncio.sleep(after_s)  # what is fetched for longer is kept all the same, and led by another meanwhile
        await answers.close()

    async def _retire_traces(self, traces: Traces, after_s: float) -> None:
        await asyncio.sleep(after_s)  # of exchanges that last longer nothing is told
        await traces.close()

    async def _retire_limits(self, limits: Limits) -> None:
        while not limits.limiter.idle:  # noqa: ASYNC110 (exchanges are settled where they were reserved)
            await asyncio.sleep(1.0)
        await limits.close()

    async def _retire_lines(self, lines: Lines) -> None:
        while not lines.admissions.idle:  # noqa: ASYNC110 (tickets are handed back where they were handed in)
            await asyncio.sleep(1.0)
        await lines.close()


def main() -> int:
    """`python -m extproc.app CONFIG INDEX FD`: one worker. FD is the socket to its supervisor."""
    path, index, line = Path(sys.argv[1]), int(sys.argv[2]), socket.socket(fileno=int(sys.argv[3]))
    pin_process()

    async def run() -> None:  # a gRPC server belongs to the loop that runs while it is made
        await Worker(path, index, os.environ[RUN_DIR]).run(line)

    try:
        asyncio.run(run())
    except DependencyError as error:  # what it needs from the start is not there
        _log.critical("can't start", extra={"reason": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
