"""API keys as a worker knows them: from configuration, from memory, and only then from the store.

Owns how long an answer is believed, and what holds while the store is lost: keys that were seen lately go
on working, unknown ones can't be judged. Must not know: Redis.
"""

import collections
import dataclasses
import hmac
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from extproc.clock import Clock
from extproc.config.model import StaticKey
from extproc.principal import Principal
from extproc.stores.errors import StoreUnavailable
from extproc.stores.keys import ALL_KEYS, KeyHasher, KeyRecord

FRESH_S = 30.0
UNKNOWN_FRESH_S = 2.0
STALE_S = 600.0
RETRY_S = 1.0
CAPACITY = 10_000


class Lookup(Protocol):
    """The store, as far as it matters here."""

    async def lookup(self, key_hash: str) -> KeyRecord | None:
        """Raises StoreUnavailable."""


@dataclasses.dataclass(slots=True)
class _Entry:
    """What the store said; `ask_again_s` moves on its own while the store is lost."""

    record: KeyRecord
    learned_s: float
    ask_again_s: float


class CachedKeys:
    """Turns a key's text into a principal.

    Unknown keys are remembered apart from known ones, so that guessing can't push these out.
    """

    def __init__(
        self,
        store: Lookup,
        hasher: KeyHasher,
        static: Mapping[str, StaticKey],
        clock: Clock,
        capacity: int = CAPACITY,
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._static = [(key.hash, _static_principal(name, key)) for name, key in static.items()]
        self._clock = clock
        self._capacity = capacity
        self._known: collections.OrderedDict[str, _Entry] = collections.OrderedDict()
        self._unknown_until_s: collections.OrderedDict[str, float] = collections.OrderedDict()
        self._degraded = False

    @property
    def degraded(self) -> bool:
        """The store did not answer when it was last asked; keys may be out of date."""
        return self._degraded

    async def authenticate(self, key: str) -> Principal | None:
        """Who this key belongs to; None if it is unknown or revoked. Raises StoreUnavailable if nobody can tell."""
        key_hash = self._hasher.hash(key)
        for static_hash, principal in self._static:
            if hmac.compare_digest(static_hash, key_hash):
                return principal
        record = await self._record(key_hash)
        return None if record is None or record.revoked else _principal(record)

    def forget(self, key_hash: str) -> None:
        """This key has changed; ALL_KEYS: any may have, so ask about each before believing it again.

        The latter comes when the store has just been reached, so it is not lost, even if nobody asks it anything.
        """
        if key_hash == ALL_KEYS:
            self._degraded = False
            self._unknown_until_s.clear()
            for entry in self._known.values():
                entry.ask_again_s = self._clock.monotonic()
        else:
            self._unknown_until_s.pop(key_hash, None)
            self._known.pop(key_hash, None)

    async def follow(self, changes: AsyncIterator[str]) -> None:
        """Forget what changes, for as long as `changes` come (`KeyStore.watch`)."""
        async for changed in changes:
            self.forget(changed)

    async def _record(self, key_hash: str) -> KeyRecord | None:
        now_s = self._clock.monotonic()
        entry = self._known.get(key_hash)
        if entry is not None and now_s < entry.ask_again_s:
            self._known.move_to_end(key_hash)
            return entry.record
        if now_s < self._unknown_until_s.get(key_hash, now_s):
            return None
        try:
            record = await self._store.lookup(key_hash)
        except StoreUnavailable:
            self._degraded = True
            if entry is None or now_s - entry.learned_s > STALE_S:
                raise
            # Not every request shall wait for a store that is known to be lost.
            entry.ask_again_s = now_s + RETRY_S
            return entry.record
        self._degraded = False
        self._learn(key_hash, record, now_s)
        return record

    def _learn(self, key_hash: str, record: KeyRecord | None, now_s: float) -> None:
        if record is None:
            self._known.pop(key_hash, None)
            self._unknown_until_s[key_hash] = now_s + UNKNOWN_FRESH_S
        else:
            self._unknown_until_s.pop(key_hash, None)
            self._known[key_hash] = _Entry(record, now_s, now_s + FRESH_S)
            self._known.move_to_end(key_hash)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        while len(self._unknown_until_s) > self._capacity:
            self._unknown_until_s.popitem(last=False)


def _principal(record: KeyRecord) -> Principal:
    return Principal(record.id, record.team, record.tier, frozenset(record.models))


def _static_principal(name: str, key: StaticKey) -> Principal:
    return Principal(name, key.team, key.tier, frozenset(key.models))
