"""The admin API's endpoints for models that are loaded on demand. Must not know: aiohttp."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec import UNSET

from extproc.admin import shapes
from extproc.admin.endpoints import Call, Endpoint, Input
from extproc.admin.problems import Problem
from extproc.admin.process import Process
from extproc.operations import models
from extproc.operations.models import NotDone, OneModel, UnknownModel
from extproc.operations.trail import ActionTrail

_PATIENCE_S = 20.0
"""Less than any answer may take here; a load that takes longer goes on."""

_REFUSALS = {404: "There is no such model.", 409: "It is not so yet, or can't be; the message says why."}


class ModelsApi:
    """Models of meshes."""

    def __init__(self, process: Process, base: str) -> None:
        self._process, self._base = process, base

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint(
                method="GET",
                path=f"{self._base}/models",
                name="listModels",
                summary="Models that are loaded on demand, and what they are doing.",
                takes=Input,
                gives=shapes.OnDemandModels,
                handle=self.list,
            ),
            Endpoint(
                method="POST",
                path=f"{self._base}/models/load",
                name="loadModel",
                summary="Load a model now, as a request for it would; 20 s are waited for that.",
                takes=shapes.WhichModel,
                gives=shapes.OnDemandModel,
                handle=self.load,
                refusals=_REFUSALS,
            ),
            Endpoint(
                method="POST",
                path=f"{self._base}/models/unload",
                name="unloadModel",
                summary="Unload a model once no request uses it; 20 s are waited for that.",
                takes=shapes.WhichModel,
                gives=shapes.OnDemandModel,
                handle=self.unload,
                refusals=_REFUSALS,
            ),
        )

    async def list(self, call: Call[Input]) -> shapes.OnDemandModels:
        return shapes.OnDemandModels(models=tuple(map(_model, await models.every(self._process.config()))))

    async def load(self, call: Call[shapes.WhichModel]) -> shapes.OnDemandModel:
        return await self._do(models.load, call)

    async def unload(self, call: Call[shapes.WhichModel]) -> shapes.OnDemandModel:
        return await self._do(models.unload, call)

    async def _do(
        self, operation: Callable[..., Awaitable[OneModel]], call: Call[shapes.WhichModel]
    ) -> shapes.OnDemandModel:
        config, asked = self._process.config(), call.input
        mesh = None if asked.mesh is UNSET else asked.mesh
        try:
            return _model(await operation(config, ActionTrail(config, call.actor), asked.model, mesh, _PATIENCE_S))
        except UnknownModel as error:
            raise Problem(404, "no_such_model", str(error), "model") from None
        except NotDone as error:
            raise Problem(409, "not_done", str(error)) from None


def _model(one: OneModel) -> shapes.OnDemandModel:
    row = one.row
    return shapes.OnDemandModel(
        mesh=one.mesh,
        model=one.name,
        state=row.state or "absent",
        in_use=row.in_use,
        waiting=row.waiting,
        memory_mb=one.settings.memory_mb,
        keep=one.settings.keep,
        load_s=row.load_ms / 1000,
        error=row.error,
    )
