"""The `model_meshes` section: servers that share their memory among more models than they can hold at once.

Must not know: how models are loaded.
"""

from collections.abc import Mapping
from typing import Annotated

import pydantic

from extproc.config.section import Seconds, Section

UpstreamName = Annotated[str, pydantic.StringConstraints(pattern=r"^\S{1,256}$")]
_Count = Annotated[int, pydantic.Field(ge=1, le=1_000_000)]
_Megabytes = Annotated[int, pydantic.Field(ge=1, le=1_000_000_000)]


class MeshedModel(Section):
    """One model of a mesh."""

    memory_mb: _Megabytes | None = None
    """What it takes of a server's memory once it is loaded; needed where the mesh has `memory_mb`."""

    keep: bool = False
    """It is loaded from the start and never unloaded."""


class ModelMesh(Section):
    """Servers whose models are loaded when a request needs one. At least one of `max_models` and `memory_mb`."""

    max_models: _Count | None = None
    """So many of its models are loaded at a time, at most; null is no bound."""

    memory_mb: _Megabytes | None = None
    """So much memory each of its servers has for its models; null is no bound."""

    models: Mapping[UpstreamName, MeshedModel] = {}
    """More about its models, by the `model` of their pools."""

    wait_s: Seconds = 60.0
    """A request waits so long for its model at most; then it is refused with 503."""

    queue_length: Annotated[int, pydantic.Field(ge=0, le=100_000)] = 64
    """So many requests wait for one model at most."""

    load_timeout_s: Seconds = 300.0
    """A load, or an unload, that takes longer has failed."""

    retry_load_s: Seconds = 10.0
    """After a load has failed the model's requests are refused for so long, and then it is tried again."""

    turn_s: Seconds = 10.0
    """When requests have waited so long for room, the least recently used model takes no new ones: it ends those that
    it has, and makes way."""

    @pydantic.model_validator(mode="after")
    def _bounded(self) -> "ModelMesh":
        if self.max_models is None and self.memory_mb is None:
            raise ValueError("give max_models or memory_mb, or both")
        return self
