"""A request waits until its model is loaded, where models are loaded on demand, and keeps it loaded until it is over.

It comes after `admit`: who is not let into a pool has no model loaded for it. Envoy has no message timeout meanwhile
(docs/architecture.md). Must not know: how a model is loaded.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from typing import ClassVar

from extproc.config.policy import FailureMode, PolicyMode, PolicySettings
from extproc.model_mesh import UNKNOWN_MS, Entry, MeshModel, Standing
from extproc.operation import Operation
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Reject, Services, Termination, Verdict
from extproc.rejection import Rejection, overloaded

LONGEST_RETRY_S = 120
_OPERATIONS = frozenset(Operation)


class Settings(PolicySettings):
    """Models loaded on demand: which, and where, is said by `model_meshes`."""

    on_failure: FailureMode = FailureMode.OPEN
    """While Redis is lost: `open` sends requests to their pools, which serves those whose model is loaded, `closed`
    refuses them with 503."""

    @property
    def shapes_answers(self) -> bool:
        return False


class LoadModel:
    """The policy `load_model`."""

    name: ClassVar[str] = "load_model"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._uses = services.model_uses
        self._clock = services.clock
        self._metrics = services.metrics.model_mesh
        self._enforced = settings.mode is PolicyMode.ENFORCE

    async def on_request(self, ctx: RequestContext) -> Verdict:
        model = None if ctx.pool is None else ctx.pool.on_demand
        # Who asks about a model does not want it loaded.
        if model is None or ctx.operation not in _OPERATIONS:
            return CONTINUE
        if not self._enforced:
            await self._shadow(model)
            return CONTINUE
        ctx.model_ticket = ticket = uuid.uuid4().hex
        entry = await self._uses.enter(model, ticket)
        waited = entry.standing is Standing.WAITING
        if waited:
            entry = await self._wait(ctx, model, ticket)
        if entry.standing is Standing.READY:
            self._metrics.ended(model.mesh, model.model, "waited" if waited else "at_once")
            return CONTINUE
        outcome = _OUTCOMES[entry.standing]
        self._metrics.ended(model.mesh, model.model, outcome)
        return Reject(_refusal(model, entry, outcome))

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        if ctx.model_ticket:
            await self._uses.leave(ctx.model_ticket)

    async def _shadow(self, model: MeshModel) -> None:
        """Count what would come of it. Whoever asked for the model would have it loaded, so nobody does."""
        entry = await self._uses.look(model)
        outcome = {Standing.READY: "at_once", Standing.WAITING: "waited"}.get(entry.standing)
        self._metrics.ended(model.mesh, model.model, outcome or _OUTCOMES[entry.standing])

    async def _wait(self, ctx: RequestContext, model: MeshModel, ticket: str) -> Entry:
        began_s = self._clock.monotonic()
        try:
            return await self._uses.turn(model, ticket, model.wait_s)
        except asyncio.CancelledError:
            self._metrics.ended(model.mesh, model.model, "left")
            raise
        finally:
            waited_s = self._clock.monotonic() - began_s
            self._metrics.waited(model.mesh, waited_s)
            # What a model takes to load is no time that this service takes for a request.
            ctx.progress.overhead_s -= waited_s


_OUTCOMES = {Standing.WAITING: "too_long", Standing.FULL: "full", Standing.FAILED: "failed"}
_MESSAGES = {
    Standing.WAITING: "The model is not loaded, and this request waited for it as long as it may.",
    Standing.FULL: "The model is not loaded, and too many requests wait for it already.",
    Standing.FAILED: "The model could not be loaded.",
}


def _refusal(model: MeshModel, entry: Entry, outcome: str) -> Rejection:
    wait_s = model.wait_s if entry.ms == UNKNOWN_MS else entry.ms / 1000
    retry_s = min(LONGEST_RETRY_S, max(1, math.ceil(wait_s)))
    return overloaded(_MESSAGES[entry.standing], f"model_{outcome}", retry_s)
