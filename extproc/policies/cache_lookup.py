"""How an answer is looked up: now, or when whoever fetches it already has it. Must not know: requests."""

from __future__ import annotations

import uuid

from msgspec import Struct

from extproc.caching import Absent, AnswerStore, EntryName, Found, Outcome
from extproc.clock import Clock
from extproc.policies import cache_entry
from extproc.policies.cache_entry import Kept
from extproc.telemetry.cache_metrics import CacheMetrics

_LOOK_AGAIN_S = 1.0
"""A follower that hears nothing for so long looks whether its leader still lives."""


class Looked(Struct, frozen=True):
    """`kept` None: there is none, or none young enough. `token`: others wait until this one is fetched and released."""

    kept: Kept | None = None
    age_s: float = 0.0
    token: str = ""


class Lookup:
    """Over one store. Its methods raise DependencyError."""

    def __init__(self, answers: AnswerStore, clock: Clock, metrics: CacheMetrics, wait_s: float) -> None:
        self._answers = answers
        self._clock = clock
        self._metrics = metrics
        self._wait_s = wait_s

    async def now(self, name: EntryName, max_age_s: float | None) -> Looked:
        """What there is."""
        return await self._read(name, await self._answers.get(name), max_age_s)

    async def in_turn(self, name: EntryName, max_age_s: float | None) -> Looked:
        """What there is, or will be when another request has fetched it, or the task of fetching it.

        Neither, after waiting too long or for nothing: then it is fetched for this request alone.
        """
        if not self._wait_s:
            return await self.now(name, max_age_s)
        until_s = self._clock.monotonic() + self._wait_s
        token = uuid.uuid4().hex
        with self._answers.follow(name) as leader:
            while True:
                got = await self._answers.get(name, token)
                if isinstance(got, Found):
                    return await self._read(name, got, max_age_s)
                if got.leads:
                    return Looked(token=token)
                left_s = until_s - self._clock.monotonic()
                if left_s <= 0:
                    self._metrics.waited("too_long")
                    return Looked()
                outcome = await leader.outcome(min(left_s, _LOOK_AGAIN_S))
                if outcome is not None:
                    self._metrics.waited(outcome)
                if outcome is Outcome.NOT_STORED:
                    return Looked()

    async def _read(self, name: EntryName, got: Found | Absent, max_age_s: float | None) -> Looked:
        if isinstance(got, Absent) or (max_age_s is not None and got.age_s > max_age_s):
            return Looked()
        try:
            return Looked(cache_entry.decode(got.body), got.age_s)
        except ValueError:  # sealed, and yet no answer: another version's
            await self._answers.delete(name)
            return Looked()
