"""The composition root of one worker process: builds everything from gateway.yaml, runs it, reloads it, ends it.

The only file that imports everything. Start: configuration, stores, pipeline, gRPC server. End, in the reverse order:
server drained, finalizers finished, stores closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from extproc import gateway_file
from extproc.audit.writer import Trail, trail_of
from extproc.clock import Clock
from extproc.config.model import GatewayConfig
from extproc.edge.server import Server, server_of
from extproc.edge.service import Service, Write
from extproc.ending import WORKER_END_S, end_within
from extproc.endpoint_watch import EndpointWatch
from extproc.errors import ConfigError, DependencyError
from extproc.fallback import OtherPools
from extproc.journey import Journey, Runtime
from extproc.policies import pipeline
from extproc.policies.interface import Services
from extproc.resources import Resources, Tasks
from extproc.routing import catalog
from extproc.routing.envoy_health import DownBoard
from extproc.routing.envoy_health import board_of as down_board_of
from extproc.routing.load_board import LoadBoard, board_of
from extproc.routing.pool_calls import PoolCalls
from extproc.stores.databases import databases_of
from extproc.stores.spool import spool_of_process
from extproc.telemetry import logs
from extproc.telemetry.metrics import RUN_DIR, Metrics, pin_process
from extproc.telemetry.open_exchanges import OpenExchanges, path_of
from extproc.telemetry.usage import UsageLog

_log = logging.getLogger(__name__)


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
        self._endpoints = EndpointWatch(self._loads, DownBoard(down_board_of(run_dir)), self._clock, self._metrics)
        self._databases = databases_of(os.environ, run_dir)
        self._usage: UsageLog
        self._audit: Trail
        self._server: Server
        self._resources: Resources
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
        self._resources = Resources(config, self._clock, self._metrics)
        await self._resources.prepare(config)
        self._runtime = self._build(config)
        loop = asyncio.get_running_loop()
        looking = [loop.create_task(look) for look in (self._loads.keep_looking(), self._endpoints.keep())]
        await self._server.start(config.service.addresses[self._index % len(config.service.addresses)])
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tasks.spawn(self._reload()))
        loop.add_reader(supervisor, stop.set)  # it never writes: this is its end
        supervisor.send(b"1")
        await stop.wait()
        loop.remove_reader(supervisor)
        service = config.service
        # A supervisor that lives kills a worker which is late; this is for one whose supervisor is gone.
        end_within(service.notice_s + service.drain_timeout_s + pipeline.CLOSE_DEADLINE_S + 2 * WORKER_END_S)
        await self._server.drain(service.drain_timeout_s, service.notice_s)
        for task in looking:
            task.cancel()
        await self._tasks.finish(pipeline.CLOSE_DEADLINE_S)
        await self._endpoints.close()
        await self._resources.close()
        await asyncio.to_thread(self._audit.close, WORKER_END_S)

    def _open(self, write: Write, traceparent: Callable[[], str]) -> Journey:
        return Journey(self._runtime, write, traceparent)

    def _build(self, config: GatewayConfig) -> Runtime:
        self._catalog, held = catalog.build(config, self._catalog), self._resources
        self._endpoints.take_up(config)
        services = Services(
            catalog=self._catalog,
            keys=held.keys.cache,
            identities=config.identities,
            metrics=self._metrics,
            usage=self._usage,
            limiter=held.limits.limiter,
            admissions=held.lines.admissions,
            model_uses=held.meshes.uses,
            pressure=self._loads,
            experiments=held.experiments,
            config_version=config.version,
            answers=held.answers.store,
            neighbours=held.answers.neighbours,
            answers_version=pipeline.answers_version(config.policies),
            databases=self._databases.obtain,
            encoder=held.encoder,
            verifier=held.verifier,
            audit=self._audit,
            tracer=held.traces.tracer,
            endpoints=self._endpoints.book,
            clock=self._clock,
        )
        built = pipeline.build(config.policies, services)
        address = config.fallback_address
        others = None if address is None else _other_pools(services, held.calls.at(address))
        return Runtime(built, config.gateway.max_body_bytes, self._tasks.spawn, others)

    async def _reload(self) -> None:
        """Take up the file as it is now; if it is bad, the configuration in force stays."""
        async with self._reloading:
            try:
                config = gateway_file.load(self._path)
                await asyncio.to_thread(pipeline.prepare, config.policies, self._databases.obtain)
                await self._resources.prepare(config)
            except ConfigError as error:
                self._refused([str(problem) for problem in error.problems])
            except DependencyError as error:
                self._refused([str(error)])
            else:
                self._take_up(config)

    def _refused(self, problems: list[str]) -> None:
        self._metrics.reloaded("refused")
        _log.error("new configuration refused", extra={"problems": problems})

    def _take_up(self, config: GatewayConfig) -> None:
        self._resources.take_up(config)
        self._runtime = self._build(config)
        self._metrics.reloaded("taken")
        _log.info("configuration in force", extra={"version": config.version})


def _other_pools(services: Services, calls: PoolCalls) -> OtherPools:
    return OtherPools(services.catalog, calls, services.metrics, services.endpoints, services.clock)


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
