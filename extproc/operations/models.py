"""Models that are loaded on demand: listed, loaded, unloaded. Every function raises StoreUnavailable or StoreTimeout.

Nothing is loaded from here: an operator's wish stands beside those of requests, and the mesh's loader does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence

from msgspec import Struct

from extproc.audit.record import Action
from extproc.config.model import GatewayConfig
from extproc.config.model_meshes import MeshedModel
from extproc.model_mesh import OCCUPYING, MeshModel, Standing, State
from extproc.operations.trail import ActionTrail
from extproc.routing.model_meshes import meshes_of
from extproc.stores.model_states import ModelRow, ModelStates

TIMEOUT_S = 5.0
"""A person waits longer for Redis than a request does."""

_LOOK_S = 0.1
_ANY_QUEUE = 1 << 20


class UnknownModel(Exception):
    """There is no such model, or more than one."""


class NotDone(Exception):
    """It was asked for, and it is not so: the message says why."""


class OneModel(Struct, frozen=True):
    """A model of a mesh."""

    mesh: str
    name: str
    settings: MeshedModel
    row: ModelRow


async def every(config: GatewayConfig) -> Sequence[OneModel]:
    """All models of all meshes, as they are now."""
    found = []
    async with _states(config) as states:
        for mesh in meshes_of(config).values():
            survey = await states.survey(mesh.name, list(mesh.models))
            found += [OneModel(mesh.name, name, mesh.models[name], row) for name, row in survey.models.items()]
    return found


async def load(config: GatewayConfig, trail: ActionTrail, model: str, mesh: str | None, timeout_s: float) -> OneModel:
    """Returns when it is loaded. Raises UnknownModel, NotRecorded, and NotDone when it failed or takes longer."""
    where = _where(config, model, mesh)
    await trail.ready()
    wanted, ticket = MeshModel(where, model, "", timeout_s, _ANY_QUEUE), uuid.uuid4().hex
    async with _states(config) as states:
        try:
            async with asyncio.timeout(timeout_s):
                while (standing := (await states.enter(wanted, ticket)).standing) is Standing.WAITING:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            standing = Standing.WAITING
        finally:
            await states.leave(wanted, ticket)
        found = await _one(config, states, where, model)
        if standing is Standing.FAILED:
            raise NotDone(f"it could not be loaded: {found.row.error}")
        await trail.note(Action.MODEL_LOADED, f"{where}/{model}")
        if standing is not Standing.READY:
            loading = found.row.state is State.LOADING
            raise NotDone("it is still being loaded" if loading else "there is no room: the other models are in use")
    return found


async def unload(config: GatewayConfig, trail: ActionTrail, model: str, mesh: str | None, timeout_s: float) -> OneModel:
    """Returns when it is gone, which it was perhaps before. Raises UnknownModel, NotRecorded, and NotDone when requests
    went on using it."""
    where = _where(config, model, mesh)
    await trail.ready()
    async with _states(config) as states:
        found = await _one(config, states, where, model)
        if found.settings.keep:
            raise NotDone("it is kept: `keep` stands in the configuration")
        if found.row.state not in OCCUPYING:
            return found
        await states.ask_to_go(where, model, int(2 * timeout_s * 1000))
        try:
            async with asyncio.timeout(timeout_s):
                while (found := await _one(config, states, where, model)).row.to_go:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise NotDone("requests went on using it") from None
        finally:
            await states.let_stay(where, model)
    await trail.note(Action.MODEL_UNLOADED, f"{where}/{model}")
    return found


def _where(config: GatewayConfig, model: str, mesh: str | None) -> str:
    meshes = [one.name for one in meshes_of(config).values() if model in one.models and mesh in (None, one.name)]
    if not meshes:
        raise UnknownModel(f"there is no model {model} that is loaded on demand")
    if len(meshes) > 1:
        raise UnknownModel(f"the model {model} is in several meshes, name one: {', '.join(meshes)}")
    return meshes[0]


async def _one(config: GatewayConfig, states: ModelStates, mesh: str, model: str) -> OneModel:
    row = (await states.survey(mesh, [model])).models[model]
    return OneModel(mesh, model, meshes_of(config)[mesh].models[model], row)


@contextlib.asynccontextmanager
async def _states(config: GatewayConfig) -> AsyncIterator[ModelStates]:
    states = ModelStates(config.redis.url.get_secret_value(), TIMEOUT_S)
    try:
        yield states
    finally:
        await states.close()
