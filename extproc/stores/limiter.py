"""The limiter of one replica: Redis while it answers, this replica's share of the limits while it does not.

Owns the circuit breaker that keeps a lost Redis off the request path, the replica's sign of life, and what was used
meanwhile, which is settled when Redis is back. Must not know: what is limited.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from extproc.clock import Clock
from extproc.errors import DependencyError
from extproc.limits import Admission, Charge, Lost
from extproc.stores.errors import StoreRefused, StoreUnavailable
from extproc.stores.limits import RedisLimits
from extproc.stores.local_share import LocalLimiter

NAME = "limit"
"""The policy that is degraded while Redis is lost."""

LIVE_S = 1.0
PROBE_S = 0.5
SPOOL = 100_000
_AT_ONCE = 50
_log = logging.getLogger(__name__)


class _Held(Struct):
    """An open reservation. `unknown`: Redis may never have heard of it, or have forgotten it."""

    charges: Sequence[Charge]
    shared: bool
    unknown: bool
    ttl_ms: int


class _Settlement(Struct, frozen=True):
    """What is to be said to Redis when it is back."""

    reservation: str
    charges: Sequence[Charge]
    actual: Sequence[int]
    unknown: bool


class SharedLimiter:
    """A `Limiter`. `keep` runs beside it for as long as it lives."""

    def __init__(self, store: RedisLimits, clock: Clock, degraded: Callable[[bool], None], replicas: int = 1) -> None:
        """`replicas`: so many there are at least, should Redis be lost before it could say."""
        self._store = store
        self._report = degraded
        self._local = LocalLimiter(clock, replicas)
        self._replica = uuid.uuid4().hex
        self._open: dict[str, _Held] = {}
        self._spool: deque[_Settlement] = deque()
        self._dropped = 0
        self.lost = False
        degraded(False)

    @property
    def idle(self) -> bool:
        """Nothing is open, and nothing waits to be said to Redis."""
        return not self._open and not self._spool

    async def reserve(self, reservation: str, charges: Sequence[Charge], ttl_s: float, lost: Lost) -> Admission:
        ttl_ms = int(ttl_s * 1000)
        heard = False
        if not self.lost:
            try:
                admission = await self._store.reserve(reservation, charges, ttl_ms)
            except StoreUnavailable as error:
                self._lose(error)
                heard = True  # it may have been made all the same
            except asyncio.CancelledError:
                self._unmake(reservation, charges)
                raise
            else:
                self._local.note(charges, admission.states)
                if admission.admitted:
                    self._open[reservation] = _Held(charges, shared=False, unknown=False, ttl_ms=ttl_ms)
                return admission
        if lost is Lost.SHARE:
            admission = await self._share(reservation, charges, ttl_s)
            if admission.admitted:
                self._open[reservation] = _Held(charges, shared=True, unknown=True, ttl_ms=ttl_ms)
                return admission
        if heard:
            self._unmake(reservation, charges)
        if lost is Lost.CLOSED:
            raise DependencyError(NAME, "Redis is lost, and without it nothing may pass")
        return admission

    async def attempt(self, charges: Sequence[Charge], lost: Lost) -> Admission:
        if not self.lost:
            try:
                return await self._store.reserve("", charges, 0)
            except StoreUnavailable as error:
                self._lose(error)
        if lost is Lost.CLOSED:
            raise DependencyError(NAME, "Redis is lost, and without it nothing may pass")
        admission = await self._share("", charges, 0)
        if admission.admitted:
            name, actual = f"attempt-{uuid.uuid4().hex}", [charge.cost for charge in charges]
            self._keep_for_later(_Settlement(name, charges, actual, unknown=True))
        return admission

    async def extend(self, reservation: str, more: Sequence[int]) -> bool:
        held = self._open.get(reservation)
        if held is None:
            return True
        if held.shared:
            return await self._local.extend(reservation, more)
        if self.lost:
            return True
        try:
            drawn = await self._store.extend(reservation, held.charges, more)
        except StoreUnavailable as error:
            self._lose(error)
            return True
        if drawn is None:  # Redis came back empty: what was used is told at the end
            held.unknown = True
        return drawn is not False

    async def settle(self, reservation: str, actual: Sequence[int]) -> None:
        held = self._open.pop(reservation, None)
        if held is None:
            return
        if held.shared:
            await self._local.settle(reservation, actual)
        settlement = _Settlement(reservation, held.charges, actual, held.unknown)
        if not self.lost:
            try:
                await self._tell(settlement)
            except StoreUnavailable as error:
                self._lose(error)
            except asyncio.CancelledError:
                self._keep_for_later(settlement)
                raise
            else:
                return
        self._keep_for_later(settlement)

    async def keep(self) -> None:
        """Show life, keep own reservations open, close leaked ones; while Redis is lost, see whether it is back."""
        while True:
            await self.beat()
            await asyncio.sleep(PROBE_S if self.lost else LIVE_S)

    async def beat(self) -> None:
        """One turn of `keep`."""
        own = [name for name, held in self._open.items() if not held.shared]
        ttl_ms = max((held.ttl_ms for held in self._open.values()), default=0)
        try:
            replicas, closed = await self._store.live(self._replica, own, ttl_ms)
            if closed:
                _log.warning("reservations that were left open are closed", extra={"reservations": closed})
            self._local.replicas = max(1, replicas)
            told = await self._tell_waiting()
            if self.lost:
                self._return(told)
        except StoreUnavailable as error:
            self._lose(error)

    async def close(self) -> None:
        """Leave the others this replica's share, and hang up."""
        try:
            await self._tell_waiting()
            await self._store.leave(self._replica)
        except StoreUnavailable:
            if self._spool:
                _log.error("settlements lost: Redis did not come back", extra={"settlements": len(self._spool)})
        finally:
            await self._store.close()

    async def _share(self, reservation: str, charges: Sequence[Charge], ttl_s: float) -> Admission:
        own = await self._local.reserve(reservation, charges, ttl_s, Lost.SHARE)
        return Admission(own.admitted, own.retry_ms, own.states, shared=True)

    async def _tell(self, settlement: _Settlement) -> None:
        await self._store.settle(
            settlement.reservation, settlement.charges, settlement.actual, unknown=settlement.unknown
        )

    def _unmake(self, reservation: str, charges: Sequence[Charge]) -> None:
        """Give back what may have been taken without anyone hearing of it."""
        attempt = [charge.cost if charge.limit.sticky else 0 for charge in charges]
        self._keep_for_later(_Settlement(reservation, charges, attempt, unknown=False))

    def _keep_for_later(self, settlement: _Settlement) -> None:
        self._spool.append(settlement)
        if len(self._spool) > SPOOL:
            self._spool.popleft()
            self._dropped += 1

    def _lose(self, error: StoreUnavailable) -> None:
        if self.lost:
            return
        self.lost = True
        self._report(True)
        for held in self._open.values():  # it may come back empty
            held.unknown = True
        _log.warning("Redis is lost: limits are no longer shared", extra={"error": str(error)})

    def _return(self, told: int) -> None:
        """Go back to asking Redis."""
        self.lost = False
        self._local.clear()
        self._report(False)
        _log.warning("Redis is back: limits are shared again", extra={"settled": told, "dropped": self._dropped})
        self._dropped = 0

    async def _tell_waiting(self) -> int:
        """Say what was kept for later, to a Redis that has just answered; how much it was. Raises StoreUnavailable."""
        told = 0
        while self._spool:
            batch = [self._spool.popleft() for _ in range(min(_AT_ONCE, len(self._spool)))]
            try:
                said = await asyncio.gather(*(self._tell(settlement) for settlement in batch), return_exceptions=True)
            except asyncio.CancelledError:
                self._spool.extendleft(reversed(batch))  # to say one again is harmless
                raise
            failed = []
            for settlement, result in zip(batch, said, strict=True):
                if isinstance(result, StoreRefused):  # it would be refused for ever, and keep all others waiting
                    self._dropped += 1
                    _log.error("a settlement was refused", extra={"error": str(result)})
                elif isinstance(result, BaseException):
                    failed.append(settlement)
                else:
                    told += 1
            if failed:
                self._spool.extendleft(reversed(failed))
                raise StoreUnavailable("lost again while it was told what was used meanwhile")
        return told
