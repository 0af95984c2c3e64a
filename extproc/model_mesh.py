"""The vocabulary of the model mesh: models that share servers which can't hold all of them at once.

Shared by the policy, which waits for a model, the stores, which keep who uses what, and the loader, which loads and
unloads. Knows nothing of Redis or of HTTP.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Protocol

from msgspec import Struct


class State(StrEnum):
    """What a mesh's servers have of a model; the names are known to the scripts in `stores/lua`."""

    ABSENT = ""
    LOADING = "loading"
    LOADED = "loaded"
    """At least one server has it ready."""
    DRAINING = "draining"
    """It is ready and ends what it has begun; nothing new is sent to it, because others have waited for its room."""
    UNLOADING = "unloading"
    FAILED = "failed"
    """It could not be loaded, and is not tried again for a while."""


OCCUPYING = frozenset({State.LOADING, State.LOADED, State.DRAINING, State.UNLOADING})
"""In these a model takes memory."""


class MeshModel(Struct, frozen=True):
    """One pool's model in its mesh, and how its requests wait for it."""

    mesh: str
    model: str
    pool: str
    wait_s: float
    queue_length: int


class Standing(IntEnum):
    """Where a request stands; the numbers are known to the scripts in `stores/lua`."""

    READY = 1
    """The model is there, and stays for as long as this request uses it."""
    WAITING = 2
    FULL = 3
    """So many wait for the model already that this one may not."""
    FAILED = 4
    """The model could not be loaded a moment ago."""


UNKNOWN_MS = -1


class Entry(Struct, frozen=True):
    """What became of a request that asked for its model.

    `ms` is, for READY, when the model was loaded (Redis's clock); else how long it will take until it is worth asking
    again, as far as that is known, or UNKNOWN_MS.
    """

    standing: Standing
    ms: int = UNKNOWN_MS


class ModelUses(Protocol):
    """Who uses which model, of all replicas. Every ticket that has entered leaves, whatever became of it."""

    async def enter(self, model: MeshModel, ticket: str) -> Entry:
        """Use the model now, or be one of those who wait for it. Raises DependencyError."""

    async def look(self, model: MeshModel) -> Entry:
        """What `enter` would say; nobody uses it or waits for it after that. Raises DependencyError."""

    async def turn(self, model: MeshModel, ticket: str, timeout_s: float) -> Entry:
        """Wait; still WAITING at the end is too long. Raises DependencyError."""

    async def leave(self, ticket: str) -> None:
        """It uses the model no more. Never raises."""


class AlwaysThere:
    """`ModelUses` where nothing is loaded on demand."""

    async def enter(self, model: MeshModel, ticket: str) -> Entry:
        return Entry(Standing.READY, 0)

    async def look(self, model: MeshModel) -> Entry:
        return Entry(Standing.READY, 0)

    async def turn(self, model: MeshModel, ticket: str, timeout_s: float) -> Entry:
        return Entry(Standing.READY, 0)

    async def leave(self, ticket: str) -> None:
        """Nobody counts."""
