"""Who waits, in this process, for answers that somebody is fetching, and how word of them comes from any process.

Owns the channel and the form of its messages. A message can be lost with its connection, so nobody may rely on one: who
waits looks again from time to time. Must not know: how answers are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import redis.asyncio

from extproc.caching import Outcome
from extproc.stores.connection import bounded
from extproc.stores.errors import StoreUnavailable

CHANNEL = "extproc:cache:done"

_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_POLL_S = 5.0
_RECONNECT_S = (0.1, 2.0)


def message(key: str, outcome: Outcome) -> str:
    return f"{outcome} {key}"


class Flight:
    """One who waits for one answer."""

    def __init__(self) -> None:
        self._news: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def outcome(self, timeout_s: float) -> Outcome | None:
        """What came of it since the last time this was asked, or comes in time."""
        await asyncio.wait({self._news}, timeout=timeout_s)
        if not self._news.done():
            return None
        outcome = self._news.result()
        self._news = asyncio.get_running_loop().create_future()
        return outcome

    def tell(self, outcome: Outcome) -> None:
        if not self._news.done():
            self._news.set_result(outcome)


class Flights:
    """All who wait here. `listen` runs beside it for as long as it lives."""

    def __init__(self, client: redis.asyncio.Redis, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._waiting: dict[str, set[Flight]] = {}

    @contextmanager
    def follow(self, key: str) -> Iterator[Flight]:
        """Begin to listen; do it before asking whether somebody leads, so that no word is missed."""
        flight = Flight()
        self._waiting.setdefault(key, set()).add(flight)
        try:
            yield flight
        finally:
            waiting = self._waiting[key]
            waiting.discard(flight)
            if not waiting:
                del self._waiting[key]

    async def listen(self) -> None:
        """Pass on what is said, for ever."""
        shortest_s, longest_s = _RECONNECT_S
        wait_s = shortest_s
        while True:
            try:
                await self._listen()
            except StoreUnavailable:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, longest_s)

    async def _listen(self) -> None:
        async with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
            async with bounded(self._timeout_s):
                await subscription.subscribe(CHANNEL)
            while True:
                async with bounded(_POLL_S + self._timeout_s):
                    told = await subscription.get_message(timeout=_POLL_S)
                if told is not None:
                    self._heard(told["data"])

    def _heard(self, data: bytes) -> None:
        said, _, key = data.decode(errors="replace").partition(" ")
        outcome = _OUTCOMES.get(said)
        if outcome is not None:
            self.tell(key, outcome)

    def tell(self, key: str, outcome: Outcome) -> None:
        """All who wait for it here."""
        for flight in self._waiting.get(key, ()):
            flight.tell(outcome)
