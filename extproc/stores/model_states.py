"""The models of meshes in Redis: their states, who uses them, who waits, and who is the loader of a mesh.

Each operation is one script, one round trip; time is Redis's own. Owns the keys. Must not know: how a model is loaded,
nor what is done when Redis is lost.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from extproc.limits import TAG
from extproc.model_mesh import Entry, MeshModel, Standing, State
from extproc.stores.connection import bounded, connect
from extproc.stores.scripts import PATIENCE, Haste, Script, ScriptRunner

LEASE_MS = 10_000
"""A user of a model, or one who waits, without a sign of life for so long is given up."""

LOADER_LEASE_MS = 5_000
"""So long after the last word of a mesh's loader another one takes over."""

_SCRIPTS = pathlib.Path(__file__).parent / "lua"
_NAMES = ("enter", "leave", "beat", "survey", "mark")


class ModelRow(Struct, frozen=True):
    """A model as Redis has it. Times are of Redis's clock; 0 is never. `load_ms`: what its last load took."""

    state: State
    since_ms: int
    retry_ms: int
    used_ms: int
    wanted_ms: int
    load_ms: int
    in_use: int
    waiting: int
    to_go: bool
    error: str


class Survey(Struct, frozen=True):
    """`leads`: who asked is the mesh's loader."""

    leads: bool
    now_ms: int
    models: Mapping[str, ModelRow]


class ModelStates:
    """Every method raises StoreUnavailable or StoreTimeout, within `timeout_s`."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._redis = connect(url, PATIENCE * timeout_s)
        self._runner = ScriptRunner(self._redis, timeout_s)
        self._enter, self._leave, self._beat, self._survey, self._mark = (
            Script(self._redis, (_SCRIPTS / f"model_{name}.lua").read_text()) for name in _NAMES
        )

    async def close(self) -> None:
        await self._runner.close()
        await self._redis.aclose()

    async def enter(self, model: MeshModel, ticket: str) -> Entry:
        """Use the model now, or wait for it: then ask again well within `LEASE_MS`."""
        asked = (ticket, LEASE_MS, model.queue_length)
        standing, ms = await self._runner.run(self._enter, _keys(model.mesh, model.model), asked)
        return Entry(Standing(standing), ms)

    async def look(self, model: MeshModel) -> Entry:
        """Where a request would stand that asked for the model now; nothing is loaded for it."""
        survey = await self.survey(model.mesh, [model.model])
        row = survey.models[model.model]
        if row.state is State.LOADED:
            return Entry(Standing.READY, row.since_ms)
        if row.state is State.FAILED and survey.now_ms < row.retry_ms:
            return Entry(Standing.FAILED, row.retry_ms - survey.now_ms)
        return Entry(Standing.FULL if row.waiting >= model.queue_length else Standing.WAITING)

    async def leave(self, model: MeshModel, ticket: str) -> None:
        await self._runner.run(self._leave, _keys(model.mesh, model.model), (ticket,), Haste.SOON)

    async def beat(self, mesh: str, model: str, tickets: Sequence[str]) -> None:
        """These use the model, still."""
        await self._runner.run(self._beat, _keys(mesh, model)[1:2], (LEASE_MS, *tickets))

    async def survey(self, mesh: str, models: Sequence[str], loader: str = "") -> Survey:
        """All of a mesh. With a name one becomes its loader, if there is none, or stays it."""
        keys = [_loader(mesh)]
        for model in models:
            keys += [*_keys(mesh, model), _to_go(mesh, model)]
        leads, now_ms, rows = await self._runner.run(self._survey, keys, (loader, LOADER_LEASE_MS))
        return Survey(bool(leads), now_ms, dict(zip(models, map(_row, rows), strict=True)))

    async def mark(self, loader: str, mesh: str, model: str, *, only_idle: bool = False, **fields: str | int) -> bool:
        """Write `fields` of a model (`state`, `until`, `load_ms`, `error`). False: another is the loader, or it is in
        use and `only_idle` was asked for."""
        pairs = [part for name, value in fields.items() for part in (name, value)]
        keys = [_loader(mesh), *_keys(mesh, model)[:2]]
        done: int = await self._runner.run(self._mark, keys, (loader, "1" if only_idle else "", *pairs))
        return done == 1

    async def begun(self, mesh: str, model: str, memory_mb: int) -> None:
        """The mesh loads it: it is the mesh's to unload, even when it is in the configuration no more."""
        async with bounded(self._timeout_s):
            await self._redis.hset(_begun(mesh), model, str(memory_mb))

    async def all_begun(self, mesh: str) -> Mapping[str, int]:
        """What the mesh has loaded and has not forgotten, with the memory in MB that each was said to take."""
        async with bounded(self._timeout_s):
            found: Any = await self._redis.hgetall(_begun(mesh))
        return {name.decode(): int(memory_mb) for name, memory_mb in found.items()}

    async def forget(self, mesh: str, model: str) -> None:
        """It is gone."""
        async with bounded(self._timeout_s):
            await self._redis.hdel(_begun(mesh), model)

    async def ask_to_go(self, mesh: str, model: str, for_ms: int) -> None:
        """An operator wants it unloaded, for so long."""
        async with bounded(self._timeout_s):
            await self._redis.set(_to_go(mesh, model), b"1", px=for_ms)

    async def let_stay(self, mesh: str, model: str) -> None:
        """Nobody wants it unloaded any more."""
        async with bounded(self._timeout_s):
            await self._redis.delete(_to_go(mesh, model))


def _loader(mesh: str) -> str:
    return f"{TAG}:model-loader:{mesh}"


def _begun(mesh: str) -> str:
    return f"{TAG}:model-begun:{mesh}"


def _to_go(mesh: str, model: str) -> str:
    return f"{TAG}:model-to-go:{mesh}:{model}"


def _keys(mesh: str, model: str) -> list[str]:
    return [f"{TAG}:model-{what}:{mesh}:{model}" for what in ("state", "uses", "waits")]


def _row(row: Sequence[Any]) -> ModelRow:
    state, since, until, used, wanted, load, users, waiting, to_go, error = row
    return ModelRow(
        State(state.decode()), since, until, used, wanted, load, users, waiting, bool(to_go),
        error.decode(errors="replace"),
    )  # fmt: skip
