"""What every worker of every replica has pending at each endpoint, in Redis, where the others read it.

Owns one hash for each pool, with a field for each worker that has anything pending: it is gone `KEEP_S` after its
worker last said so, so that a dead one's requests don't count for longer. One exchange with Redis in `BEAT_S`, however
many requests there are: what others had is known that late, and forgotten `KEEP_S` after Redis was lost. Must not know:
what is concluded from it.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from extproc.clock import Clock
from extproc.routing.endpoint_book import EndpointBook
from extproc.stores.connection import bounded, connect
from extproc.stores.errors import StoreUnavailable

NAME = "endpoint"
"""The policy that is degraded while Redis is lost."""

BEAT_S = 0.25
KEEP_S = 2.0
_log = logging.getLogger(__name__)
_PREFIX = "{extproc}:pending:"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, int]).decode


class Heard(Struct, frozen=True):
    """What `members` others have pending at the endpoints of one pool, by address."""

    tokens: Mapping[str, int]
    members: int


class PendingStore:
    """One worker's. Every method raises StoreUnavailable or StoreTimeout, within `timeout_s`."""

    def __init__(self, url: str, timeout_s: float, member: str = "") -> None:
        self._redis = connect(url, timeout_s)
        self._timeout_s = timeout_s
        self._member = (member or uuid.uuid4().hex).encode()

    async def close(self) -> None:
        await self._redis.aclose()

    async def exchange(self, own: Mapping[str, Mapping[str, int]]) -> dict[str, Heard]:
        """Say what this worker has, by pool, and hear what the others have."""
        async with bounded(self._timeout_s), self._redis.pipeline(transaction=False) as pipeline:
            for pool, tokens in own.items():
                self._say(pipeline, _PREFIX + pool, tokens)
            answers: Any = await pipeline.execute()
        return {pool: self._others(fields) for pool, fields in zip(own, answers[1::2], strict=True)}

    async def read(self, pool: str) -> Heard:
        """What all have, for who is none of them."""
        async with bounded(self._timeout_s):
            fields: Any = await self._redis.hgetall(_PREFIX + pool)
        return self._others(fields)

    def _say(self, pipeline: Any, key: str, tokens: Mapping[str, int]) -> None:
        if tokens:
            pipeline.execute_command(
                "HSETEX", key, "PX", int(KEEP_S * 1000), "FIELDS", 1, self._member, _encode(dict(tokens))
            )
        else:
            pipeline.hdel(key, self._member)
        pipeline.hgetall(key)

    def _others(self, fields: Mapping[bytes, bytes]) -> Heard:
        others = [written for member, written in fields.items() if member != self._member]
        return _summed(others)


def _summed(written: Sequence[bytes]) -> Heard:
    """What can't be read is left out: a newer version may have written it."""
    tokens: Counter[str] = Counter()
    members = 0
    for one in written:
        try:
            said = _decode(one)
        except msgspec.DecodeError:
            continue
        members += 1
        tokens.update({address: amount for address, amount in said.items() if amount > 0})
    return Heard(tokens, members)


class SharedPending:
    """Keeps a worker's book up to date with what others have pending. `keep` runs beside it for as long as it lives."""

    def __init__(self, store: PendingStore, book: EndpointBook, clock: Clock, degraded: Callable[[bool], None]) -> None:
        self._store, self._book, self._clock, self._report = store, book, clock, degraded
        self._heard_s = clock.monotonic()
        self._lost: bool | None = None  # until it was asked
        degraded(False)

    @property
    def age_s(self) -> float:
        """For how long nothing has been heard."""
        return self._clock.monotonic() - self._heard_s

    async def beat(self) -> None:
        """Say and hear, once."""
        own = {name: dict(endpoints.own) for name, endpoints in self._book.pools.items()}
        if not own:
            self._heard_s = self._clock.monotonic()
            self._note(False)
            return
        try:
            heard = await self._store.exchange(own)
        except StoreUnavailable as error:
            self._lose(error)
            return
        self._heard_s = self._clock.monotonic()
        if self._lost:
            _log.warning("Redis is back: what others have pending is known again")
        self._note(False)
        for name, endpoints in self._book.pools.items():
            if name in heard:
                endpoints.heard(heard[name].tokens, heard[name].members, own[name])

    async def close(self) -> None:
        """What this worker had is forgotten in `KEEP_S`."""
        await self._store.close()

    def _lose(self, error: StoreUnavailable) -> None:
        if not self._lost:
            _log.warning("Redis is lost: what others have pending is not known", extra={"error": str(error)})
        self._note(True)
        if self.age_s > KEEP_S:
            for endpoints in self._book.pools.values():
                endpoints.heard({}, 0, {})

    def _note(self, lost: bool) -> None:
        """The first time in any case: another, before a change of the configuration, may have said otherwise."""
        if lost is not self._lost:
            self._lost = lost
            self._report(lost)
