"""`extproc serve`: keeps the worker processes alive, tells them of a changed gateway.yaml, serves the admin port.

Never imports grpc: its threads don't survive a fork, and a supervisor that does nothing can't break.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, multiprocess

from extproc import gateway_file
from extproc.admin.decisions import Decisions
from extproc.administration import Administered, start_administration
from extproc.audit.record import Action, Entry
from extproc.audit.writer import files_of, trail_of
from extproc.config.model import GatewayConfig, GrpcServer
from extproc.ending import SERVICE_END_S, WORKER_END_S, end_within, finished
from extproc.errors import ConfigError
from extproc.guardrail_watch import GuardrailWatch
from extproc.limits import PERCENT
from extproc.model_loader import ModelLoader
from extproc.policies import pipeline
from extproc.policies.limit_adaptive import TIERS
from extproc.policies.limit_settings import Settings as LimitSettings
from extproc.routing.envoy_health import HealthWatch
from extproc.routing.envoy_health import board_of as down_board_of
from extproc.routing.load_board import LoadBoard, board_of
from extproc.routing.load_poller import LoadPoller, Watched
from extproc.stores.audit_anchors import AuditAnchors
from extproc.stores.audit_feed import AuditFeed
from extproc.stores.ledger import Ledger, Retention
from extproc.stores.ledger_feed import LedgerFeed
from extproc.stores.limits import settle_for_the_dead
from extproc.stores.spool import SPOOL_DIR, SpoolReader, SpoolWriter, spool_of_process
from extproc.telemetry import logs
from extproc.telemetry.metrics import RUN_DIR, Metrics, pin_process
from extproc.telemetry.open_exchanges import path_of
from extproc.telemetry.usage import account_for_the_dead, owed_by_the_dead

# gRPC's older poller wakes fewer threads per message than its event engine: a fifth less CPU per exchange, measured
# with gRPC 1.81. Setting the variable oneself overrides it.
GRPC_EXPERIMENTS = "GRPC_EXPERIMENTS"
OLDER_POLLER = "-event_engine_listener,-event_engine_client,-event_engine_for_all_other_endpoints"
_POLL_S = 0.5
# A changed file has to rest for so long: whoever writes it may not be done.
_REST_S = 1.0
_RESTART_S = (0.1, 5.0)
_START_TIMEOUT_S = 60.0
_LONG_LIFE_S = 10.0
_LAST_FEED_S = 3.0
_log = logging.getLogger(__name__)


class Worker:
    """One worker's process, started again whenever it dies."""

    def __init__(
        self,
        config_path: Path,
        index: int,
        run_dir: str,
        spool: SpoolWriter | None,
        owed: Callable[[list[tuple[str, list[int]]]], None],
    ) -> None:
        self._path, self._index = config_path, index
        self._run_dir = run_dir
        self._spool = spool
        self._owed = owed
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self.ready = False

    async def keep_running(self) -> None:
        """Run it until `stop`; a worker that dies at once is started again ever more slowly."""
        shortest_s, longest_s = _RESTART_S
        wait_s = shortest_s
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began_s = loop.time()
            await self._start()
            assert self._process is not None
            if self._stopping.is_set():  # while it was started; nobody has told it
                self.signal(signal.SIGTERM)
            code = await self._process.wait()
            self.ready = False
            multiprocess.mark_process_dead(self._process.pid, self._run_dir)  # type: ignore[no-untyped-call]
            table = path_of(self._run_dir, self._index)
            owed = owed_by_the_dead(table)
            left = account_for_the_dead(table, sys.stdout.fileno(), self._spool)
            if owed:
                self._owed(owed)
            if self._stopping.is_set():
                return
            _log.error("worker died", extra={"worker": self._index, "code": code, "exchanges_lost": left})
            wait_s = shortest_s if loop.time() - began_s > _LONG_LIFE_S else min(2 * wait_s, longest_s)
            await asyncio.sleep(wait_s)

    async def _start(self) -> None:
        # The worker writes one byte when it is ready, and leaves when it reads the end: its supervisor is gone.
        ours, theirs = socket.socketpair()
        arguments = [sys.executable, "-m", "extproc.app", str(self._path), str(self._index), str(theirs.fileno())]
        self._process = await asyncio.create_subprocess_exec(
            *arguments,
            pass_fds=(theirs.fileno(),),
            stdin=asyncio.subprocess.DEVNULL,
        )
        theirs.close()
        asyncio.get_running_loop().add_reader(ours, self._heard, ours)

    def _heard(self, line: socket.socket) -> None:
        if line.recv(1):
            self.ready = True
        else:
            asyncio.get_running_loop().remove_reader(line)
            line.close()

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def stop(self) -> None:
        self._stopping.set()
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)


class Supervisor:
    """All workers of one `extproc serve`."""

    def __init__(self, config_path: Path, config: GatewayConfig, run_dir: str) -> None:
        self._path, self._config = config_path, config
        self._metrics = Metrics(CollectorRegistry())
        spool = spool_of_process("supervisor", config.ledger.spool_limit_bytes, self._metrics.ledger_lost)
        self._workers = [
            Worker(config_path, index, run_dir, spool, self._settle) for index in range(config.service.workers)
        ]
        self._settling: set[asyncio.Task[None]] = set()
        self._feeds: list[LedgerFeed] = []  # one, or none without a ledger
        self._decisions = Decisions()
        self._board = board_of(run_dir)
        self._poller = LoadPoller(self._board, _watched(config))
        self._health = HealthWatch(down_board_of(run_dir), config)
        self._models = ModelLoader(config, self._metrics.model_mesh)
        self._audit = trail_of(config.audit, self._metrics)
        self._guardrails = GuardrailWatch(config, self._audit.record)
        self._stop = asyncio.Event()
        self._seen = _fingerprint(config_path)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; then drain the workers and end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        if SPOOL_DIR in os.environ:
            reader = SpoolReader(Path(os.environ[SPOOL_DIR]))
            self._feeds.append(LedgerFeed(reader, _ledger(self._config), self._decisions.heard))
        admin = await start_administration(self._administered(loop), self._decisions, LoadBoard(self._board))
        self._on_record(Action.CONFIG_TAKEN, config_version=self._config.version)
        anchoring = loop.create_task(self._anchor())
        feeding = [loop.create_task(feed.run()) for feed in self._feeds]
        running = [loop.create_task(worker.keep_running()) for worker in self._workers]
        looks = (
            self._watch_file(),
            self._poller.run(),
            self._health.run(),
            self._guardrails.run(),
            self._models.run(),
        )
        watching = [loop.create_task(look) for look in looks]
        await self._stop.wait()
        for task in watching:
            task.cancel()
        await self._end_workers(running)
        end_within(SERVICE_END_S)
        await self._keep_records(feeding)
        anchoring.cancel()
        await finished("anchoring", [anchoring], _LAST_FEED_S)
        await admin.close()

    async def _end_workers(self, running: list[asyncio.Task[None]]) -> None:
        service = self._config.service
        grace_s = service.notice_s + service.drain_timeout_s + pipeline.CLOSE_DEADLINE_S + WORKER_END_S
        end_within(grace_s + SERVICE_END_S)
        for worker in self._workers:
            worker.stop()
        # The finalizers of the last streams come after the drain.
        _, late = await asyncio.wait(running, timeout=grace_s)
        if late:
            _log.error("workers did not end and are killed", extra={"workers": len(late), "after_s": grace_s})
            for worker in self._workers:
                worker.kill()
            await finished("killed workers", late, _LAST_FEED_S)

    async def _keep_records(self, feeding: list[asyncio.Task[None]]) -> None:
        """What the last exchanges used, what was decided, and what a dead worker owed: each for as long as it may."""
        writing = asyncio.get_running_loop().run_in_executor(None, self._audit.close, _LAST_FEED_S)
        await finished("settlements", list(self._settling), _LAST_FEED_S)
        for task in feeding:
            task.cancel()
        await finished("feeding the ledger", feeding, _LAST_FEED_S)
        for feed in self._feeds:
            await feed.finish(_LAST_FEED_S)
        await writing

    def _settle(self, owed: list[tuple[str, list[int]]]) -> None:
        """What a dead worker said was used and had not settled."""
        redis = self._config.redis
        work = settle_for_the_dead(redis.url.get_secret_value(), redis.timeout_s, owed)
        task = asyncio.get_running_loop().create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def _on_record(self, action: Action, config_version: str = "") -> None:
        """Who changed the file is not known here; that it was changed is."""
        self._audit.record(Entry(time_s=time.time(), actor="service", action=action, config_version=config_version))

    async def _anchor(self) -> None:
        """Anchor the audit log in Redis, until cancelled and then once more."""
        files, redis = files_of(self._config.audit), self._config.redis
        if files is None:
            return
        feed = AuditFeed(files, AuditAnchors(redis.url.get_secret_value(), redis.timeout_s))
        try:
            await feed.run()
        finally:
            await feed.finish()

    def ready(self) -> bool:
        """Every worker takes streams."""
        return not self._stop.is_set() and all(worker.ready for worker in self._workers)

    def _administered(self, loop: asyncio.AbstractEventLoop) -> Administered:
        return Administered(
            config=lambda: self._config,
            ready=self.ready,
            stopping=self._stop,
            loop=loop,
            workers=len(self._workers),
            feeds=self._feeds,
            beside=[*self._feeds, self._poller, self._models],
        )

    async def _watch_file(self) -> None:
        # Polling sees what file events miss: the symbolic link that Kubernetes swaps under a mounted ConfigMap.
        resting = False
        while True:
            await asyncio.sleep(_REST_S if resting else _POLL_S)
            now = _fingerprint(self._path)
            if now != self._seen:
                self._seen, resting = now, True
            elif resting:
                resting = False
                self._reload()

    def _reload(self) -> None:
        """Have the workers take up the file, if it is good."""
        try:
            config = gateway_file.load(self._path)
        except ConfigError as error:
            self._metrics.reloaded("refused")
            self._on_record(Action.CONFIG_REFUSED)
            _log.error("new configuration refused", extra={"problems": [str(p) for p in error.problems]})
            return
        if config.service != self._config.service:
            _log.warning("changes in `service` take effect at the next start")
        for feed in self._feeds:
            feed.change(_ledger(config))
        self._poller.change(_watched(config))
        self._health.change(config)
        self._guardrails.change(config)
        self._models.change(config)
        self._config = config
        self._on_record(Action.CONFIG_TAKEN, config_version=config.version)
        for worker in self._workers:
            worker.signal(signal.SIGHUP)


def _ledger(config: GatewayConfig) -> Ledger:
    retention = Retention(config.ledger.max_age_days, config.ledger.max_records)
    return Ledger(config.redis.url.get_secret_value(), config.redis.timeout_s, retention)


def _watched(config: GatewayConfig) -> Watched:
    """The pools that show their load, and what the policy `limit` makes of it."""
    limit = config.policies.get("limit")
    if not isinstance(limit, LimitSettings) or limit.adaptive is None:
        return Watched(config)
    adaptive = limit.adaptive
    levels = range(len(adaptive.levels) + 1)
    factors = {tier: tuple(adaptive.percent(level, tier) / PERCENT for level in levels) for tier in TIERS}
    return Watched(config, adaptive.ladder, factors)


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def serve(config_path: Path) -> int:
    """Run the service until it is told to stop. Raises ConfigError for a bad configuration."""
    config = gateway_file.load(config_path)
    logs.configure(config.telemetry.log_level)
    run_dir = tempfile.mkdtemp(prefix="extproc-")
    os.environ[RUN_DIR] = run_dir
    if config.service.server is GrpcServer.GRPCIO:
        os.environ.setdefault(GRPC_EXPERIMENTS, OLDER_POLLER)
    pin_process()
    try:
        with _spool(config):
            asyncio.run(Supervisor(config_path, config, run_dir).run())
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
    return 0


@contextlib.contextmanager
def _spool(config: GatewayConfig) -> Iterator[None]:
    """Where this process and its workers spool for the ledger; one of its own goes when nothing waits there."""
    os.environ.pop(SPOOL_DIR, None)
    if not config.ledger.enabled:
        yield
        return
    chosen = config.ledger.spool_dir
    directory = chosen.absolute() if chosen is not None else Path(tempfile.mkdtemp(prefix="extproc-spool-"))
    os.environ[SPOOL_DIR] = str(directory)
    yield
    waiting_bytes = SpoolReader(directory).waiting_bytes()
    if waiting_bytes:
        _log.error("usage has not reached the ledger", extra={"spool": str(directory), "bytes": waiting_bytes})
    elif chosen is None:
        shutil.rmtree(directory, ignore_errors=True)
