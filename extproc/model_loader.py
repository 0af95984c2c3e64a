"""Loads and unloads the models of meshes, in the supervisor. Of all replicas one is a mesh's loader: the one that holds
its name in Redis, for as long as it goes on asking.

Triton itself is the truth: the loader reads each server's index once a second, and what it finds there is what Redis is
told. One thing at a time is done in a mesh. A loader that is replaced while it loads can't write what came of it any
more (every word it says is checked against the name), and its successor reads it from the index.

Must not know: who waits for a model, or how it is chosen what is unloaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Iterator, Mapping

import aiohttp
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from extproc.config.address import TcpAddress
from extproc.config.model import GatewayConfig
from extproc.config.model_meshes import MeshedModel
from extproc.model_mesh import OCCUPYING, State
from extproc.routing.model_meshes import Mesh, meshes_of
from extproc.routing.model_plan import Do, Model, Room, Step, next_step
from extproc.routing.model_repository import BUSY, LOADING, READY, UNLOADING, ModelRepository, RepositoryError
from extproc.stores.errors import StoreUnavailable
from extproc.stores.model_states import ModelRow, ModelStates, Survey
from extproc.telemetry.model_mesh_metrics import ModelMeshMetrics

LOOK_S = 0.25
_SYNC_S = 1.0
_log = logging.getLogger(__name__)

Index = Mapping[TcpAddress, Mapping[str, frozenset[str]]]
"""By server that answers, and by model, the states of its versions there; without those that take no memory."""


class MeshLoader:
    """One mesh's, until cancelled; what it had asked of Triton then is done all the same. `name` is this process's."""

    def __init__(
        self, name: str, mesh: Mesh, states: ModelStates, session: aiohttp.ClientSession, metrics: ModelMeshMetrics
    ) -> None:
        self._name = name
        self.mesh, self._states, self._metrics = mesh.name, states, metrics
        self._mesh = mesh
        self._servers = {server: ModelRepository(session, server) for server in mesh.servers}
        self._room = Room(mesh.settings.max_models, mesh.settings.memory_mb)
        self._index: Index = {}
        self._dropped: Mapping[str, MeshedModel] = {}
        self._synced_s = float("-inf")
        self._repair_s: dict[TcpAddress, float] = {}  # a server that could not load is left alone until then
        self._doing: asyncio.Task[None] | None = None
        self._trouble = ""
        self.rows: Mapping[str, ModelRow] = {}

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                try:
                    await self.look()
                    self._note("")
                except StoreUnavailable as error:
                    self._note(str(error))
                except Exception:  # a bug of ours; what is loaded is served meanwhile
                    _log.exception("models can't be looked after", extra={"mesh": self.mesh})
                await asyncio.sleep(LOOK_S)
        finally:
            if self._doing is not None:
                self._doing.cancel()
                await asyncio.wait([self._doing])
            with contextlib.suppress(StoreUnavailable):
                await self._states.close()

    async def look(self) -> None:
        """Once: see what is wanted and what is there, and begin one step. Raises StoreUnavailable."""
        survey = await self._survey()
        if not survey.leads or (self._doing is not None and not self._doing.done()):
            return
        if time.monotonic() - self._synced_s >= _SYNC_S:
            await self._sync()
            survey = await self._survey()
        if not self._index or not survey.leads:  # nobody is there who could do anything
            return
        step = next_step(self._models(survey), self._room, survey.now_ms, int(self._mesh.settings.turn_s * 1000))
        if step is not None:
            self._doing = asyncio.get_running_loop().create_task(self._guarded(step, survey))
        elif (missing := self._missing(survey)) is not None:
            self._doing = asyncio.get_running_loop().create_task(self._repair(*missing))

    async def _survey(self) -> Survey:
        survey = await self._states.survey(self.mesh, [*self._mesh.models, *self._dropped], self._name)
        self.rows = survey.models
        return survey

    def _models(self, survey: Survey) -> list[Model]:
        known = {**self._dropped, **self._mesh.models}
        return [
            Model(
                name,
                row.state,
                known[name].memory_mb or 0,
                known[name].keep,
                row.used_ms,
                row.in_use,
                row.waiting,
                row.wanted_ms,
                row.retry_ms,
                row.to_go or name in self._dropped,
            )
            for name, row in survey.models.items()
            if name in self._mesh.models or row.state in OCCUPYING
        ]

    async def _sync(self) -> None:
        """What the servers have is how it is, whatever was believed."""
        self._synced_s = time.monotonic()
        found = await asyncio.gather(*(self._there(server) for server in self._servers))
        self._index = {server: there for server, there in zip(self._servers, found, strict=True) if there is not None}
        if not self._index:
            return
        begun = await self._states.all_begun(self.mesh)
        self._dropped = {
            name: MeshedModel(memory_mb=memory_mb or None)
            for name, memory_mb in begun.items()
            if name not in self._mesh.models and name not in self._mesh.untouched
        }
        for name in begun.keys() & self._mesh.untouched:
            await self._states.forget(self.mesh, name)  # it belongs to others now
        for name, row in (await self._survey()).models.items():
            everywhere = frozenset[str]().union(*(there.get(name, ()) for there in self._index.values()))
            if name in begun and not everywhere and len(self._index) == len(self._servers):
                await self._states.forget(self.mesh, name)
            state = _believed(row.state, everywhere)
            if state is State.ABSENT and row.state in (State.LOADED, State.DRAINING):
                _log.warning("a model is gone from its servers", extra=self._about(name))
            if state is not row.state:
                await self._mark(name, state)

    async def _there(self, server: TcpAddress) -> Mapping[str, frozenset[str]] | None:
        try:
            states = await self._servers[server].states()
        except RepositoryError:
            return None  # Envoy's health checks say so louder
        return {name: found for name, all_ in states.items() if (found := all_ & BUSY)}

    def _missing(self, survey: Survey) -> tuple[str, TcpAddress] | None:
        """A model that is loaded, and one of the servers that has it not: it was started again, say."""
        for server, there in self._index.items():
            if time.monotonic() >= self._repair_s.get(server, 0.0):
                for name, row in survey.models.items():
                    if row.state is State.LOADED and name not in there and self._stays(name, row):
                        return name, server
        return None

    def _stays(self, name: str, row: ModelRow) -> bool:
        return name in self._mesh.models and not row.to_go

    async def _guarded(self, step: Step, survey: Survey) -> None:
        try:
            await self._do(step, survey.models[step.model])
        except StoreUnavailable as error:
            self._note(str(error))  # the next reading of the index says what came of it
        except Exception:
            _log.exception("a model could not be seen to", extra=self._about(step.model))
        finally:
            self._synced_s = float("-inf")

    async def _do(self, step: Step, row: ModelRow) -> None:
        if step.do is Do.DRAIN:
            await self._mark(step.model, State.DRAINING)
        elif step.do is Do.RESUME:
            await self._mark(step.model, State.LOADED)
        elif step.do is Do.LOAD:
            if await self._mark(step.model, State.LOADING):
                await self._states.begun(self.mesh, step.model, self._mesh.models[step.model].memory_mb or 0)
                await self._load(step.model)
        # Whoever came to use it since it was looked at, keeps it.
        elif await self._mark(step.model, State.UNLOADING, only_idle=True):
            await self._unload(step.model, row)

    async def _load(self, model: str) -> None:
        began_s = time.monotonic()
        failures = await self._on_all(model, load=True)
        if len(failures) == len(self._index):
            error = next(iter(failures.values()), "no server answers")
            self._metrics.stepped(self.mesh, model, "load_failed")
            _log.error("a model could not be loaded", extra=self._about(model) | {"error": error})
            now_ms = (await self._survey()).now_ms
            retry_ms = now_ms + int(self._mesh.settings.retry_load_s * 1000)
            await self._mark(model, State.FAILED, until=retry_ms, error=error)
            return
        took_s = time.monotonic() - began_s
        self._metrics.stepped(self.mesh, model, "loaded")
        self._metrics.loaded(self.mesh, model, took_s)
        _log.info("a model is loaded", extra=self._about(model) | {"seconds": round(took_s, 3)})
        await self._mark(model, State.LOADED, load_ms=int(took_s * 1000), error="")

    async def _unload(self, model: str, row: ModelRow) -> None:
        failures = await self._on_all(model, load=False)
        outcome = "unload_failed" if failures else "unloaded"
        self._metrics.stepped(self.mesh, model, outcome)
        _log.info("a model is unloaded", extra=self._about(model) | {"used_ms": row.used_ms, "failures": len(failures)})
        if failures:
            return  # the index says what there is, and it is tried again
        await self._mark(model, State.ABSENT)
        if row.to_go:
            await self._states.let_stay(self.mesh, model)

    async def _repair(self, model: str, server: TcpAddress) -> None:
        try:
            await self._servers[server].load(model, self._mesh.settings.load_timeout_s)
        except RepositoryError as error:
            self._repair_s[server] = time.monotonic() + self._mesh.settings.retry_load_s
            about = self._about(model) | {"server": str(server), "error": str(error)}
            _log.warning("a model is missing on one of its servers", extra=about)
        finally:
            self._synced_s = float("-inf")

    async def _on_all(self, model: str, *, load: bool) -> Mapping[TcpAddress, str]:
        """Load or unload it on every server that answers; why it failed on those where it did."""
        timeout_s = self._mesh.settings.load_timeout_s

        async def on(repository: ModelRepository) -> str:
            try:
                await (repository.load(model, timeout_s) if load else repository.unload(model, timeout_s))
            except RepositoryError as error:
                return str(error)
            return ""

        servers = list(self._index)
        said = await asyncio.gather(*(on(self._servers[server]) for server in servers))
        return {server: error for server, error in zip(servers, said, strict=True) if error}

    async def _mark(self, model: str, state: State, *, only_idle: bool = False, **more: str | int) -> bool:
        fields = {"state": str(state), **more}
        return await self._states.mark(self._name, self.mesh, model, only_idle=only_idle, **fields)

    def _note(self, trouble: str) -> None:
        """One log line when Redis is lost, one when it is back."""
        if bool(trouble) != bool(self._trouble):
            text = "models are not loaded on demand: Redis is lost" if trouble else "models are loaded on demand again"
            _log.warning(text, extra={"mesh": self.mesh, "error": trouble})
        self._trouble = trouble

    def _about(self, model: str) -> dict[str, str]:
        return {"mesh": self.mesh, "model": model}


class ModelLoader(Collector):
    """All meshes of one configuration, and of those that take its place."""

    def __init__(self, config: GatewayConfig, metrics: ModelMeshMetrics) -> None:
        self._metrics = metrics
        self._name = uuid.uuid4().hex  # one for all configurations: nobody has to wait for a lease of its own to end
        self._wanted = _wanted(config)
        self._changed = asyncio.Event()
        self._loaders: list[MeshLoader] = []

    def change(self, config: GatewayConfig) -> None:
        """From now on these."""
        wanted = _wanted(config)
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    async def run(self) -> None:
        """For ever."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                self._changed.clear()
                meshes, url, timeout_s = self._wanted
                self._loaders = [
                    MeshLoader(self._name, mesh, ModelStates(url, timeout_s), session, self._metrics)
                    for mesh in meshes.values()
                ]
                running = [asyncio.ensure_future(loader.run()) for loader in self._loaders]
                try:
                    await self._changed.wait()
                finally:
                    for task in running:
                        task.cancel()
                    await asyncio.gather(*running, return_exceptions=True)

    def collect(self) -> Iterator[Metric]:
        """What is loaded now, as Redis has it."""
        loaded = GaugeMetricFamily("extproc_model_loaded", "1 for a model that is loaded.", labels=["mesh", "model"])
        for loader in self._loaders:
            for model, row in loader.rows.items():
                loaded.add_metric([loader.mesh, model], row.state in (State.LOADED, State.DRAINING))
        yield loaded


def _believed(state: State, found: frozenset[str]) -> State:
    """The state of a model of which that was found on all servers together. What Triton loads or unloads takes its
    room until Triton has done it, whoever asked for it and whether or not he waits still."""
    if READY in found:
        return state if state is State.DRAINING else State.LOADED
    if LOADING in found:
        return State.LOADING
    if UNLOADING in found:
        return State.UNLOADING
    return State.ABSENT if state in OCCUPYING else state


def _wanted(config: GatewayConfig) -> tuple[Mapping[str, Mesh], str, float]:
    return meshes_of(config), config.redis.url.get_secret_value(), config.redis.timeout_s
