"""What was said of experiments while they run, in Redis: weights in force, arms that were pulled, when they began.

Owns the two hashes, and a worker's ear on them: what is written is in force in every worker that reaches Redis within
`LISTEN_S` and one timeout; one that doesn't goes on with what it heard last. Must not know: what a weight does.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from extproc.routing.experiments import Change
from extproc.stores.connection import bounded, connect
from extproc.stores.errors import StoreUnavailable

CHANGES = "{extproc}:experiments"
BEGAN = "{extproc}:experiments:began"
LISTEN_S = 1.0

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Change).decode


class ExperimentStore:
    """Every method raises StoreUnavailable or StoreTimeout, within `timeout_s`."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._redis = connect(url, timeout_s)
        self._timeout_s = timeout_s
        script = importlib.resources.files("extproc.stores").joinpath("lua", "experiment_change.lua").read_text()
        self._change = self._redis.register_script(script)

    async def close(self) -> None:
        await self._redis.aclose()

    async def changes(self) -> Mapping[str, Change]:
        """By experiment. What can't be read is left out: a newer version may have written it."""
        async with bounded(self._timeout_s):
            found: Any = await self._redis.hgetall(CHANGES)
        changes = {}
        for name, written in found.items():
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                changes[name.decode()] = _decode(written)
        return changes

    async def change(self, experiment: str, before: Change | None, after: Change | None) -> bool:
        """Put `after` (None: nothing) where `before` is; False: somebody else was faster, and nothing is done."""
        written = [b"" if one is None else _encode(one) for one in (before, after)]
        async with bounded(self._timeout_s):
            return bool(await self._change(keys=(CHANGES,), args=(experiment, *written)))

    async def begin(self, experiment: str, fingerprint: str, now_s: float) -> float:
        """Unix seconds when this description of it was first seen, which is now if nobody has."""
        async with bounded(self._timeout_s):
            await self._redis.hsetnx(BEGAN, f"{experiment}@{fingerprint}", repr(now_s))
        return await self.began(experiment, fingerprint)

    async def began(self, experiment: str, fingerprint: str) -> float:
        """Unix seconds when this description of it was first seen; 0 if nobody has."""
        async with bounded(self._timeout_s):
            written: Any = await self._redis.hget(BEGAN, f"{experiment}@{fingerprint}")
        return 0.0 if written is None else float(written)


class HeardChanges:
    """A worker's view."""

    def __init__(self, store: ExperimentStore, note_lost: Callable[[bool], None]) -> None:
        self._store = store
        self._note_lost = note_lost
        self._lost: bool | None = None  # before it has listened once
        self._changes: Mapping[str, Change] = {}

    def of(self, experiment: str) -> Change | None:
        return self._changes.get(experiment)

    async def listen(self) -> None:
        """Once. What was heard before stays where Redis is lost."""
        try:
            self._changes = await self._store.changes()
        except StoreUnavailable:
            lost = True
        else:
            lost = False
        if lost is not self._lost:
            self._lost = lost
            self._note_lost(lost)

    async def keep_listening(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(LISTEN_S)
            await self.listen()

    async def close(self) -> None:
        await self._store.close()
