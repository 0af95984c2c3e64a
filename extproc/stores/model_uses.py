"""Which models a worker's requests use and wait for: kept in Redis, with a sign of life while they do.

Owns the worker's own tickets, the breaker that keeps a lost Redis off the request path, and what was proved of Envoy: a
model that a server has just loaded gets nothing until Envoy's health check has seen it, so after each load it is asked
whether a request would arrive. Must not know: how a model is loaded, nor how Envoy is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from msgspec import Struct

from extproc.clock import Clock
from extproc.model_mesh import UNKNOWN_MS, Entry, MeshModel, Standing
from extproc.stores.errors import StoreUnavailable
from extproc.stores.model_states import ModelStates

NAME = "load_model"
"""The policy that is degraded while Redis is lost."""

POLL_S = 0.2
"""Who waits asks so often: a load takes seconds."""

_BEAT_S = 1.0
_LOST_S = 1.0
_log = logging.getLogger(__name__)


class _Ticket(Struct):
    model: MeshModel
    uses: bool = False


class SharedModelUses:
    """`ModelUses`. `keep` runs beside it for as long as it lives.

    `arrives` says whether a request to a pool would arrive at a server that has its model.
    """

    def __init__(
        self,
        states: ModelStates,
        clock: Clock,
        arrives: Callable[[MeshModel], Awaitable[bool]],
        degraded: Callable[[bool], None],
    ) -> None:
        self._states = states
        self._clock = clock
        self._arrives, self._report = arrives, degraded
        self._open: dict[str, _Ticket] = {}
        self._proved: dict[str, int] = {}
        self._proving: dict[str, asyncio.Task[bool]] = {}
        self._lost_until_s = 0.0
        self._lost = False
        degraded(False)

    @property
    def idle(self) -> bool:
        return not self._open

    async def enter(self, model: MeshModel, ticket: str) -> Entry:
        self._open[ticket] = _Ticket(model)
        return await self._ask(model, ticket)

    async def look(self, model: MeshModel) -> Entry:
        return await self._heard(lambda: self._states.look(model))

    async def turn(self, model: MeshModel, ticket: str, timeout_s: float) -> Entry:
        due_s = self._clock.monotonic() + timeout_s
        while True:
            await asyncio.sleep(max(0.0, min(POLL_S, due_s - self._clock.monotonic())))
            entry = await self._ask(model, ticket)
            if entry.standing is not Standing.WAITING or self._clock.monotonic() >= due_s:
                return entry

    async def leave(self, ticket: str) -> None:
        known = self._open.pop(ticket, None)
        if known is not None and self._clock.monotonic() >= self._lost_until_s:
            # Should it not be heard, the ticket is given up when its lease ends.
            with contextlib.suppress(StoreUnavailable):
                await self._states.leave(known.model, ticket)

    async def keep(self) -> None:
        """Show life, for ever."""
        while True:
            await asyncio.sleep(_BEAT_S)
            await self.beat()

    async def beat(self) -> None:
        """One sign of life of all that use a model; those of the time without Redis are known to it from then on."""
        tickets: dict[tuple[str, str], dict[str, MeshModel]] = {}
        for name, ticket in self._open.items():
            if ticket.uses:
                tickets.setdefault((ticket.model.mesh, ticket.model.model), {})[name] = ticket.model
        try:
            for (mesh, model), named in tickets.items():
                await self._states.beat(mesh, model, list(named))
                self._find()
                for name in named.keys() - self._open.keys():  # it left meanwhile, and may be counted again
                    await self._states.leave(named[name], name)
        except StoreUnavailable as error:
            self._lose(error)

    async def close(self) -> None:
        for task in self._proving.values():
            task.cancel()
        await asyncio.gather(*self._proving.values(), return_exceptions=True)
        await self._states.close()

    async def _ask(self, model: MeshModel, ticket: str) -> Entry:
        known = self._open[ticket]
        try:
            entry = await self._heard(lambda: self._states.enter(model, ticket))
        except StoreUnavailable:
            known.uses = True  # it goes on without leave, where that is how it is configured
            raise
        known.uses = entry.standing is Standing.READY
        if entry.standing is Standing.READY and not await self._proves(model, entry.ms):
            return Entry(Standing.WAITING, UNKNOWN_MS)
        return entry

    async def _heard(self, ask: Callable[[], Awaitable[Entry]]) -> Entry:
        if self._clock.monotonic() < self._lost_until_s:
            raise StoreUnavailable("it was lost a moment ago")
        try:
            entry = await ask()
        except StoreUnavailable as error:
            self._lose(error)
            raise
        self._find()
        return entry

    async def _proves(self, model: MeshModel, loaded_ms: int) -> bool:
        """Whether Envoy sends to the model, as it was loaded then; asked once for all who want to know."""
        if self._proved.get(model.pool) == loaded_ms:
            return True
        proving = self._proving.get(model.pool)
        if proving is None:
            proving = self._proving[model.pool] = asyncio.ensure_future(self._arrives(model))
            proving.add_done_callback(lambda _: self._proving.pop(model.pool, None))
        if await asyncio.shield(proving):
            self._proved[model.pool] = loaded_ms
            return True
        return False

    def _find(self) -> None:
        if self._lost:
            self._lost = False
            self._report(False)
            _log.warning("Redis is back: models are loaded on demand again")

    def _lose(self, error: StoreUnavailable) -> None:
        self._lost_until_s = self._clock.monotonic() + _LOST_S
        if not self._lost:
            self._lost = True
            self._report(True)
            _log.warning("Redis is lost: nothing is loaded or unloaded", extra={"error": str(error)})
