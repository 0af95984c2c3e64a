"""Lines before pools, in Redis: each operation is one script, one round trip. Whose turn it is, is told on a channel.

Owns the scripts, their keys and the form of what goes to them and comes from the channel. Time is Redis's own. Must not
know: what is done when Redis is lost.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from extproc.admission import LEVELS, UNIT, Entry, Line, Standing, Ticket, Use
from extproc.limits import TAG
from extproc.stores.connection import bounded, connect
from extproc.stores.scripts import PATIENCE, Haste, Script, ScriptRunner

CHANNEL = "extproc:admit:"
"""With a replica's name appended, where it is told what became of its tickets; known to the scripts."""

_REPLICAS = f"{TAG}:admit-replicas"
_SCRIPTS = pathlib.Path(__file__).parent / "lua"
_REPLICA_TTL_MS = 10_000
_MOST_REAPED = 200
_POLL_S = 5.0
_pack = msgspec.msgpack.Encoder().encode


class Pulse(Struct, frozen=True):
    """What a sign of life is answered with."""

    replicas: int
    reaped: int
    use: Use
    standings: tuple[Standing, ...]


class RedisLines:
    """Every method but `listen` raises StoreUnavailable or StoreTimeout, within `timeout_s`.

    Without a name for `replica` it is an onlooker. `now_ms` holds time still for tests; without it the scripts ask
    Redis.
    """

    def __init__(self, url: str, timeout_s: float, replica: str, now_ms: int | None = None) -> None:
        self._timeout_s = timeout_s
        self._replica = replica
        self._redis = connect(url, PATIENCE * timeout_s)
        self._runner = ScriptRunner(self._redis, timeout_s)
        self.now_ms = now_ms
        common = (_SCRIPTS / "admit.lua").read_text()
        self._enter, self._leave, self._beat = (
            Script(self._redis, common + (_SCRIPTS / f"admit_{name}.lua").read_text())
            for name in ("enter", "leave", "beat")
        )

    async def close(self) -> None:
        await self._runner.close()
        await self._redis.aclose()

    async def enter(self, line: Line, ticket: Ticket, *, forced: bool = False) -> Entry:
        """Hand a ticket in; the same one again changes nothing. `forced`: it runs already."""
        request = (
            ticket.id, int(ticket.priority), ticket.tokens, ticket.principal, self._replica, ticket.wait_ms,
            line.lease_ms, forced,
        )  # fmt: skip
        standing, position = await self._run(self._enter, line, request)
        return Entry(Standing(standing), position)

    async def leave(self, line: Line, ticket_id: str) -> Standing:
        """Hand it back; what it stood for."""
        return Standing(await self._run(self._leave, line, (ticket_id,), Haste.SOON))

    async def beat(self, line: Line, own: Sequence[str], *, reap: bool) -> Pulse:
        """Keep one's own tickets; `reap`: hand back those that nobody keeps."""
        request = (self._replica, own, line.lease_ms, _REPLICA_TTL_MS, _MOST_REAPED if reap else 0)
        replicas, reaped, requests, tokens, waiting, standings = await self._run(self._beat, line, request)
        use = Use(tuple(requests), tuple(tokens), tuple(waiting))
        return Pulse(replicas, reaped, use, tuple(map(Standing, standings)))

    async def listen(self, tell: Callable[[str, Standing], None]) -> None:
        """Pass on what this replica is told, until the connection breaks."""
        async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
            async with bounded(self._timeout_s):
                await subscription.subscribe(CHANNEL + self._replica)
            while True:
                async with bounded(_POLL_S + self._timeout_s):
                    told = await subscription.get_message(timeout=_POLL_S)
                if told is not None:
                    standing, _, ticket_id = told["data"].decode(errors="replace").partition(" ")
                    tell(ticket_id, Standing(int(standing)))

    async def _run(self, script: Script, line: Line, request: Any, haste: Haste = Haste.NOW) -> Any:
        asked = _pack(((line.requests, line.tokens, line.weights, line.length, UNIT), request))
        now = "" if self.now_ms is None else self.now_ms
        return await self._runner.run(script, _keys(line.pool), (asked, now), haste)


def _keys(pool: str) -> list[str]:
    prefix = f"{TAG}:admit:{pool}"
    queues = [f"{prefix}:waiting:{level}" for level in range(LEVELS)]
    ends = [f"{prefix}:ends:{level}" for level in range(LEVELS)]
    return [f"{prefix}:state", f"{prefix}:tickets", f"{prefix}:leases", _REPLICAS, *queues, *ends]
