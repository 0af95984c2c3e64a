"""Reservations in Redis: each operation is one script, one round trip, all or nothing.

Owns the scripts, their keys and the form of what goes to them. Time is Redis's own. Every key has the same hash tag, so
that on a Redis Cluster all limits of a request are in one slot. Must not know: what is done when Redis is lost.
"""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Sequence
from typing import Any

import msgspec

from extproc.limits import TAG, Admission, Charge, State
from extproc.stores.connection import bounded, connect
from extproc.stores.errors import StoreUnavailable
from extproc.stores.scripts import PATIENCE, Haste, Script, ScriptRunner

REMEMBER_S = 3600
"""How long a reservation that was closed without its owner, or settled for a lost Redis, is remembered."""

_OPEN, _EXPIRY, _REPLICAS, _CLOSED = f"{TAG}:open", f"{TAG}:expiry", f"{TAG}:replicas", f"{TAG}:closed:"
_SCRIPTS = pathlib.Path(__file__).parent / "lua"
_REPLICA_TTL_MS = 10_000
_MOST_REAPED = 200
_RETRY_S = 1.0
_pack = msgspec.msgpack.Encoder().encode


class RedisLimits:
    """Every method raises StoreUnavailable or StoreTimeout, within `timeout_s`.

    `now_ms` holds time still for tests; without it the scripts ask Redis.
    """

    def __init__(self, url: str, timeout_s: float, now_ms: int | None = None) -> None:
        self._timeout_s = timeout_s
        self._redis = connect(url, PATIENCE * timeout_s)
        self._runner = ScriptRunner(self._redis, timeout_s)
        self.now_ms = now_ms
        common = (_SCRIPTS / "counters.lua").read_text()
        self._reserve, self._extend, self._settle, self._reap = (
            Script(self._redis, common + (_SCRIPTS / f"{name}.lua").read_text())
            for name in ("reserve", "extend", "settle", "reap")
        )

    async def close(self) -> None:
        await self._runner.close()
        await self._redis.aclose()

    async def reserve(self, reservation: str, charges: Sequence[Charge], ttl_ms: int) -> Admission:
        """Take all charges or none but the sticky ones; with an empty name what is taken is never given back."""
        request = (reservation, ttl_ms, [_wire(charge) for charge in charges])
        keys = (_OPEN, _EXPIRY, *(charge.key for charge in charges))
        admitted, retry_ms, *numbers = await self._run(self._reserve, keys, request)
        states = tuple(State(*numbers[at : at + 3]) for at in range(0, len(numbers), 3))
        return Admission(admitted == 1, retry_ms, states)

    async def extend(self, reservation: str, charges: Sequence[Charge], more: Sequence[int]) -> bool | None:
        """Draw more of each charge, all or nothing. None: there is no such reservation (any more)."""
        keys = (_OPEN, *(charge.key for charge in charges))
        drawn = await self._run(self._extend, keys, (reservation, more))
        return None if drawn < 0 else drawn == 1

    async def settle(
        self, reservation: str, charges: Sequence[Charge], actual: Sequence[int], *, unknown: bool = False
    ) -> bool:
        """Make the charges what they really were. False: that was done before, or there is no such reservation.

        `unknown`: settle it even so. It was made while Redis was lost, or nobody heard whether it was made.
        """
        keys = (_OPEN, _EXPIRY, _CLOSED + reservation, *(charge.key for charge in charges))
        wire = [_wire(charge) for charge in charges] if unknown else []
        return bool(
            await self._run(self._settle, keys, (reservation, actual, wire, REMEMBER_S * 1000), Haste.SOON) == 1
        )

    async def live(self, replica: str, own: Sequence[str], ttl_ms: int) -> tuple[int, int]:
        """Keep `own` reservations open, close those that nobody keeps open; how many replicas live, how many closed."""
        request = (replica, own, ttl_ms, _REPLICA_TTL_MS, _MOST_REAPED, _CLOSED, REMEMBER_S * 1000)
        replicas, closed = await self._run(self._reap, (_OPEN, _EXPIRY, _REPLICAS), request)
        return replicas, closed

    async def leave(self, replica: str) -> None:
        """This replica goes away: its share is the others'."""
        async with bounded(self._timeout_s):
            await self._redis.execute_command("ZREM", _REPLICAS, replica)  # type: ignore[no-untyped-call]

    async def _run(self, script: Script, keys: Sequence[str], request: Any, haste: Haste = Haste.NOW) -> Any:
        now = "" if self.now_ms is None else self.now_ms
        return await self._runner.run(script, keys, (_pack(request), now), haste)


async def settle_for_the_dead(url: str, timeout_s: float, owed: Sequence[tuple[str, Sequence[int]]]) -> None:
    """Settle the reservations of a process that is gone, as soon as Redis answers; their charges it knows itself."""
    store = RedisLimits(url, timeout_s)
    waiting = list(owed)
    try:
        for _ in range(int(REMEMBER_S / _RETRY_S)):
            try:
                while waiting:
                    reservation, actual = waiting[-1]
                    await store.settle(reservation, (), actual)
                    waiting.pop()
                return
            except StoreUnavailable:
                await asyncio.sleep(_RETRY_S)
    finally:
        await store.close()


def _wire(charge: Charge) -> tuple[str | int | bool, ...]:
    limit = charge.limit
    return (
        charge.key,
        int(limit.kind),
        limit.amount,
        limit.a,
        limit.b,
        limit.tick_ms,
        charge.cost,
        charge.floor,
        limit.shadow,
        limit.sticky,
        limit.most,
    )
