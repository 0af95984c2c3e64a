"""Admission of one replica: the lines in Redis while it answers, this replica's share of each pool while it does not.

Owns the memory of the replica's own tickets, by which a line that Redis lost or forgot is made again, and the circuit
breaker. A ticket that was handed in and never handed back is given up when its lease ends, so nothing that gets lost on
the way has to be remembered here. Must not know: what is admitted.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

from msgspec import Struct

from extproc.admission import Entry, Line, Standing, Ticket, Use
from extproc.clock import Clock
from extproc.errors import DependencyError
from extproc.limits import Lost
from extproc.stores.errors import StoreUnavailable
from extproc.stores.fair_line import FairLine
from extproc.stores.lines import Pulse, RedisLines

NAME = "admit"
"""The policy that is degraded while Redis is lost."""

BEAT_S = 1.0
PROBE_S = 0.5
_RECONNECT_S = (0.1, 2.0)
_log = logging.getLogger(__name__)


class _Open(Struct):
    """A ticket that was handed in. `turn` is told once what became of it; `handed_in`: Redis may know of it."""

    line: Line
    ticket: Ticket
    lost: Lost
    turn: asyncio.Future[Standing]
    handed_in: bool = False

    @property
    def runs(self) -> bool:
        return self.turn.done() and self.turn.result() is Standing.RUNNING

    @property
    def kept(self) -> bool:
        """It runs or waits."""
        return self.runs or not self.turn.done()

    def tell(self, standing: Standing) -> None:
        if not self.turn.done() and standing not in (Standing.WAITING, Standing.UNKNOWN):
            self.turn.set_result(standing)


class SharedAdmissions:
    """`Admissions`. `keep` and `listen` run beside it for as long as it lives."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        clock: Clock,
        degraded: Callable[[bool], None],
        use: Callable[[str, Use], None],
        replicas: int = 1,
    ) -> None:
        """`use` is told what is in use of a pool; `replicas`: so many there are at least, should Redis be lost before
        it could say."""
        self._store = RedisLines(url, timeout_s, uuid.uuid4().hex)
        self._clock = clock
        self._report, self._report_use = degraded, use
        self._least_replicas = self._replicas = replicas
        self._lines: dict[str, Line] = {}
        self._open: dict[str, _Open] = {}
        self._local: dict[str, FairLine] = {}
        self._left: list[_Open] = []  # known to Redis, and handed back while it was lost
        self._back_ms = 0
        self._used = asyncio.Event()
        self.lost = False
        degraded(False)

    @property
    def idle(self) -> bool:
        return not self._open

    def local_use(self, pool: str) -> Use:
        """What is in use of this replica's share, while Redis is lost."""
        return self._local.get(pool, FairLine()).use

    async def enter(self, line: Line, ticket: Ticket, lost: Lost) -> Entry:
        self._lines[line.pool] = line
        self._used.set()
        turn = asyncio.get_running_loop().create_future()
        opened = self._open[ticket.id] = _Open(line, ticket, lost, turn)
        if not self.lost:
            try:
                entry = await self._hand_in(opened)
            except StoreUnavailable as error:
                self._lose(error)
            else:
                return entry
        if lost is Lost.CLOSED:
            self._open.pop(ticket.id, None)
            raise DependencyError(NAME, "Redis is lost, and without it nothing may pass")
        if opened.turn.done() and not opened.runs:  # its fate was decided with that of all others
            return Entry(opened.turn.result(), shared=True)
        return self._enter_locally(opened)

    async def turn(self, ticket_id: str, timeout_s: float) -> Standing:
        opened = self._open.get(ticket_id)
        if opened is None:
            return Standing.UNKNOWN
        await asyncio.wait({opened.turn}, timeout=timeout_s)
        return opened.turn.result() if opened.turn.done() else Standing.LATE

    async def leave(self, ticket_id: str) -> None:
        opened = self._open.pop(ticket_id, None)
        if opened is None:
            return
        if not self.lost:
            try:
                await self._store.leave(opened.line, ticket_id)
            except StoreUnavailable as error:
                self._lose(error)
            else:
                return
        if opened.handed_in:
            self._left.append(opened)
        self._local_line(opened.line).leave(opened.line.share(self._replicas), ticket_id, self._now_ms())

    async def keep(self) -> None:
        """Show life; while Redis is lost, see whether it is back."""
        while True:
            await asyncio.sleep(PROBE_S if self.lost else BEAT_S)
            await self.beat()

    async def listen(self) -> None:
        """Hear whose turn it is, once there are lines. What is not heard is found out by the next sign of life."""
        await self._used.wait()
        shortest_s, longest_s = _RECONNECT_S
        wait_s = shortest_s
        while True:
            try:
                await self._store.listen(self._heard)
            except StoreUnavailable:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, longest_s)

    async def beat(self) -> None:
        """One sign of life, in every line that was ever used here."""
        for pool in self._local:
            self._report_use(pool, self.local_use(pool))
        try:
            for line in list(self._lines.values()):
                own = [one for one in self._open.values() if one.line.pool == line.pool and one.kept]
                if self.lost:
                    own = []  # they are handed in again when it is back
                reap = self._now_ms() - self._back_ms >= line.lease_ms
                pulse = await self._store.beat(line, [one.ticket.id for one in own], reap=reap)
                self._replicas = max(self._least_replicas, pulse.replicas)
                if not self.lost:
                    await self._compare(line, own, pulse)
            if self.lost and self._lines:
                await self._return()
        except StoreUnavailable as error:
            self._lose(error)

    async def close(self) -> None:
        await self._store.close()

    async def _hand_in(self, opened: _Open) -> Entry:
        opened.handed_in = True
        entry = await self._store.enter(opened.line, opened.ticket, forced=opened.runs)
        opened.tell(entry.standing)
        return entry

    async def _compare(self, line: Line, own: list[_Open], pulse: Pulse) -> None:
        """What Redis knows of this replica's tickets, with what the replica knows."""
        self._report_use(line.pool, pulse.use)
        if pulse.reaped:
            _log.warning("slots that nobody kept are free again", extra={"pool": line.pool, "slots": pulse.reaped})
        for opened, standing in zip(own, pulse.standings, strict=True):
            opened.tell(standing)
            forgotten = standing is Standing.UNKNOWN or (opened.runs and standing is Standing.WAITING)
            if forgotten and opened.kept and opened.ticket.id in self._open:
                await self._hand_in(opened)

    def _heard(self, ticket_id: str, standing: Standing) -> None:
        opened = self._open.get(ticket_id)
        if opened is not None:
            opened.tell(standing)

    def _enter_locally(self, opened: _Open) -> Entry:
        line, runs = opened.line.share(self._replicas), opened.runs
        own = self._local_line(opened.line)
        entry = own.enter(line, opened.ticket, self._now_ms(), forced=runs)
        opened.tell(entry.standing)
        return Entry(entry.standing, entry.position, shared=True)

    def _local_line(self, line: Line) -> FairLine:
        return self._local.setdefault(line.pool, FairLine(self._heard))

    def _lose(self, error: StoreUnavailable) -> None:
        """From here on this replica's share is all there is; what runs is part of it, and who waits waits on."""
        if self.lost:
            return
        self.lost = True
        self._report(True)
        for opened in sorted(self._open.values(), key=lambda one: not one.runs):
            if opened.lost is Lost.CLOSED:
                opened.tell(Standing.LOST)
            if opened.kept:
                self._enter_locally(opened)
        _log.warning("Redis is lost: pools are no longer shared", extra={"error": str(error)})

    async def _return(self) -> None:
        """Hand back what ended meanwhile, hand in again what runs, whatever there is room for, and then who waits.

        Raises StoreUnavailable.
        """
        told: set[str] = set()
        while True:  # others come and go meanwhile
            left = self._left[:]
            remaining = [one for one in self._open.values() if one.ticket.id not in told and one.kept]
            if not left and not remaining:
                break
            told.update(one.ticket.id for one in remaining)
            # All at once, and in this order: they go together, and are run in the order of their asking.
            await asyncio.gather(*(self._store.leave(one.line, one.ticket.id) for one in left))
            del self._left[: len(left)]
            await asyncio.gather(*(self._hand_in(one) for one in sorted(remaining, key=lambda one: not one.runs)))
        self.lost = False
        self._back_ms = self._now_ms()
        self._local.clear()
        self._report(False)
        _log.warning("Redis is back: pools are shared again", extra={"tickets": len(told)})

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)
