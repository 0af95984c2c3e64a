"""Kept answers in Redis: each operation is one script, one round trip, and one for all who ask for the same at once.

Owns keys, seal, time-outs, and the breaker that keeps a lost Redis off the request path. Time is Redis's own. Every key
of a tenant has its name as hash tag, so that what is one tenant's is together on a Redis Cluster, and can be counted,
bounded and purged by itself. Must not know: what an answer is.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote

from extproc.caching import Absent, EntryName, Found, Outcome, Quota, Room
from extproc.clock import Clock
from extproc.errors import DependencyError
from extproc.stores.connection import bounded, connect
from extproc.stores.errors import StoreUnavailable
from extproc.stores.flights import CHANNEL, Flight, Flights, message
from extproc.stores.scripts import PATIENCE, Script, ScriptRunner
from extproc.stores.seal import Broken, Sealer

PREFIX = "extproc:cache:"
LEASE_S = 3.0
"""A leader that does not show life for so long is replaced."""

_RENEW_S = LEASE_S / 3
_FOLLOWED_MS = 600_000
_LOST_S = 0.5  # so long without an answer: a burst may take a while, and is no reason to do without a cache
_RETRY_S = 1.0
_LARGE_BYTES = 1 << 16
_SCRIPTS = pathlib.Path(__file__).parent / "lua"


def tenant_prefix(tenant: str) -> str:
    """What all keys of a tenant begin with."""
    return f"{PREFIX}{{{quote(tenant, safe='')}}}:"


def member(name: EntryName) -> str:
    """What an entry is called within its tenant; model and namespace can be read in it."""
    return f"{quote(name.model, safe='')}/{quote(name.namespace, safe='')}/{name.digest}"


class RedisAnswers:
    """An `AnswerStore`. Lookups raise StoreUnavailable within `lookup_timeout_s`, all else within `timeout_s`.

    `keep` runs beside it for as long as it lives.
    """

    def __init__(
        self, url: str, timeout_s: float, lookup_timeout_s: float, secret: bytes, clock: Clock,
        kept: Callable[[Room], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._sealer = Sealer(secret)
        self._clock = clock
        self._kept = kept
        self._redis = connect(url, PATIENCE * timeout_s)
        # Apart, so that no lookup waits behind a large answer that is being kept.
        self._reads = ScriptRunner(self._redis, lookup_timeout_s)
        self._writes = ScriptRunner(self._redis, timeout_s)
        self._flights = Flights(self._redis, timeout_s)
        self._leads: dict[tuple[str, str], str] = {}
        self._asked: dict[tuple[tuple[str, str], bool], asyncio.Future[Found | Absent]] = {}
        self._answered_s = self._ask_again_s = clock.monotonic()
        common = (_SCRIPTS / "answers.lua").read_text()
        self._get, self._put, self._delete, self._release, self._renew = (
            Script(self._redis, common + (_SCRIPTS / f"answer_{name}.lua").read_text())
            for name in ("get", "put", "delete", "release", "renew")
        )

    def digest(self, data: bytes) -> str:
        return self._sealer.digest(data)

    async def get(self, name: EntryName, token: str = "") -> Found | Absent:
        place = tenant_prefix(name.tenant), member(name)
        if token and place in self._leads:
            return Absent()  # it is being fetched here, and is told here
        key = (place, bool(token))
        asked = self._asked.get(key)
        if asked is not None:  # many who ask for one answer at once ask once
            return _without_lead(await asyncio.shield(asked))
        asked = self._asked[key] = asyncio.get_running_loop().create_future()
        got: Found | Absent = Absent()  # what the others hear if this one is cancelled: they look again
        try:
            got = await self._ask(name, token)
        except DependencyError as error:
            asked.set_exception(error)
            asked.exception()  # there may be no others
            raise
        finally:
            del self._asked[key]
            if not asked.done():
                asked.set_result(got)
        if isinstance(got, Absent) and got.leads:
            self._leads[place] = token
        return got

    async def _ask(self, name: EntryName, token: str) -> Found | Absent:
        prefix, entry = tenant_prefix(name.tenant), member(name)
        arguments = (entry, token, int(LEASE_S * 1000), _FOLLOWED_MS)
        kept, number = await self._run(self._reads, self._get, prefix, arguments)
        if kept is None:
            return Absent(leads=number == 1)
        try:
            body = await _beside_if_large(len(kept), lambda: self._sealer.open(prefix + entry, kept))
        except Broken:
            await self.delete(name)
            return Absent()
        return Found(body, number / 1000)

    async def put(self, name: EntryName, body: bytes, ttl_s: float, quota: Quota) -> None:
        prefix, entry = tenant_prefix(name.tenant), member(name)
        sealed = await _beside_if_large(len(body), lambda: self._sealer.seal(prefix + entry, body))
        arguments = (entry, sealed, max(1, int(ttl_s * 1000)), quota.entries, quota.size_bytes)
        _, evicted, entries, size_bytes = await self._run(self._writes, self._put, prefix, arguments)
        self._kept(Room(evicted, entries / quota.entries, size_bytes / quota.size_bytes))

    async def delete(self, name: EntryName) -> None:
        await self._run(self._writes, self._delete, tenant_prefix(name.tenant), (member(name),))

    async def release(self, name: EntryName, token: str, outcome: Outcome) -> None:
        prefix, entry = tenant_prefix(name.tenant), member(name)
        said = message(prefix + entry, outcome)
        try:
            await self._run(self._writes, self._release, prefix, (entry, token, CHANNEL, said))
        finally:
            self._leads.pop((prefix, entry), None)
            self._flights.tell(prefix + entry, outcome)

    def follow(self, name: EntryName) -> AbstractContextManager[Flight]:
        return self._flights.follow(tenant_prefix(name.tenant) + member(name))

    async def keep(self) -> None:
        """Listen for what others finish, and show life for what is being fetched here."""
        with contextlib.suppress(StoreUnavailable):  # connected before the first burst of requests
            async with bounded(_RENEW_S):
                await asyncio.gather(self._redis.ping(), self._redis.ping())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._flights.listen())
            while True:
                await asyncio.sleep(_RENEW_S)
                with contextlib.suppress(StoreUnavailable):
                    await self._show_life()

    async def close(self) -> None:
        await self._reads.close()
        await self._writes.close()
        await self._redis.aclose()

    async def _show_life(self) -> None:
        lease_ms = int(LEASE_S * 1000)
        renewals = [
            self._run(self._writes, self._renew, prefix, (entry, token, lease_ms))
            for (prefix, entry), token in self._leads.items()
        ]
        await asyncio.gather(*renewals)

    def script(self, name: str) -> Script:
        """One that shares what the scripts of answers share; for `read` and `write`."""
        return Script(self._redis, (_SCRIPTS / "answers.lua").read_text() + (_SCRIPTS / f"{name}.lua").read_text())

    async def read(self, script: Script, prefix: str, arguments: Sequence[Any]) -> Any:
        """Run a script on a tenant's keys, within the time of a lookup. Raises StoreUnavailable."""
        return await self._run(self._reads, script, prefix, arguments)

    async def write(self, script: Script, prefix: str, arguments: Sequence[Any]) -> Any:
        """The same, with more time, and not in the way of lookups."""
        return await self._run(self._writes, script, prefix, arguments)

    def seal(self, name: str, content: bytes) -> bytes:
        return self._sealer.seal(name, content)

    def unseal(self, name: str, sealed: bytes) -> bytes:
        """Raises Broken."""
        return self._sealer.open(name, sealed)

    async def _run(self, runner: ScriptRunner, script: Script, prefix: str, arguments: Sequence[Any]) -> Any:
        """Raises StoreUnavailable: at once, if Redis was lost a moment ago."""
        if self._clock.monotonic() < self._ask_again_s:
            raise StoreUnavailable("it was lost a moment ago")
        try:
            answer = await runner.run(script, (prefix,), arguments)
        except StoreUnavailable:
            now_s = self._clock.monotonic()
            if now_s - self._answered_s > _LOST_S:
                self._ask_again_s = now_s + _RETRY_S
            raise
        self._answered_s = self._clock.monotonic()
        return answer


def _without_lead(got: Found | Absent) -> Found | Absent:
    """The same for those who only heard it: one alone leads."""
    return Absent() if isinstance(got, Absent) else got


async def _beside_if_large(size_bytes: int, work: Callable[[], bytes]) -> bytes:
    """What takes milliseconds is done in a thread: other streams of the worker go on."""
    return work() if size_bytes <= _LARGE_BYTES else await asyncio.to_thread(work)
