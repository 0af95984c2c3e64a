"""API keys in Redis: who has which, and that a change is seen everywhere at once.

Owns the text of a key, its keyed hash, the stored record. The text is known only to its owner: what is
stored, compared and published is the hash. Must not know: what a caller may do with a key.

One Redis hash, `extproc:keys`, holds a JSON record per key hash. Every change is published on the channel
of the same name, with the hash as its message.
"""

import asyncio
import contextlib
import datetime
import hmac
import secrets
import string
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import blake3
import msgspec

from extproc.config.tier import Tier
from extproc.stores.connection import bounded, connect
from extproc.stores.errors import StoreUnavailable

PREFIX = "sk-xp-"
ALL_KEYS = "*"
"""What `watch` gives when changes may have been missed."""

_KEYS = "extproc:keys"
_ALPHABET = string.digits + string.ascii_letters
_RANDOM_CHARS = 43  # of 62 characters each: as much as 32 random bytes
_PEPPER_CONTEXT = "extproc 2026-01 keyed hash of API keys"
_RECONNECT_S = (0.1, 2.0)
_POLL_S = 5.0


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a key. `models` are public model names, or "*" for all."""

    id: str
    hash: str
    name: str
    team: str
    tier: Tier
    models: tuple[str, ...]
    created: datetime.datetime
    revoked: bool = False


class CreatedKey(msgspec.Struct, frozen=True):
    """The only moment at which a key's text is known here."""

    text: str
    record: KeyRecord


class KeyHasher:
    """The keyed hash of a key's text: 64 hex digits, useless to who steals them without the secret."""

    def __init__(self, secret: bytes) -> None:
        self._pepper = blake3.blake3(secret, derive_key_context=_PEPPER_CONTEXT).digest()

    def hash(self, text: str) -> str:
        return blake3.blake3(text.encode("utf-8", "surrogatepass"), key=self._pepper).hexdigest()


class KeyStore:
    """Keys in Redis. Every method raises StoreUnavailable or StoreTimeout, within `timeout_s`."""

    def __init__(
        self,
        url: str,
        hasher: KeyHasher,
        timeout_s: float,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._hasher = hasher
        self._timeout_s = timeout_s
        self._now = now
        self._redis = connect(url, timeout_s)

    async def close(self) -> None:
        await self._redis.aclose()

    async def lookup(self, key_hash: str) -> KeyRecord | None:
        """The record of the key with this hash, revoked or not."""
        async with bounded(self._timeout_s):
            stored = await _answer(self._redis.hget(_KEYS, key_hash))
        if stored is None:
            return None
        record = _decode(stored)
        return record if hmac.compare_digest(record.hash, key_hash) else None

    async def create(self, *, name: str, team: str, tier: Tier, models: Sequence[str]) -> CreatedKey:
        """Make a new key; its text can't be had again later."""
        text = PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARS))
        record = KeyRecord(
            id="key-" + secrets.token_hex(6),
            hash=self._hasher.hash(text),
            name=name,
            team=team,
            tier=tier,
            models=tuple(models),
            created=self._now().replace(microsecond=0),
        )
        await self._put(record)
        return CreatedKey(text, record)

    async def list(self) -> "list[KeyRecord]":
        """Every key, oldest first."""
        async with bounded(self._timeout_s):
            stored = await _answer(self._redis.hvals(_KEYS))
        return sorted((_decode(value) for value in stored), key=lambda record: (record.created, record.id))

    async def revoke(self, key_id: str) -> KeyRecord | None:
        """End a key, at once and everywhere; None if there is none with this id. Again is harmless."""
        for record in await self.list():
            if record.id == key_id:
                revoked = msgspec.structs.replace(record, revoked=True)
                await self._put(revoked)
                return revoked
        return None

    async def watch(self) -> AsyncGenerator[str, None]:
        """Hash after hash of the keys that change, for ever; ALL_KEYS after each (re)connection.

        A connection that hangs without breaking is noticed by nobody; who relies on this needs a time to live too.
        """
        shortest_s, longest_s = _RECONNECT_S
        wait_s = shortest_s
        while True:
            try:
                async with contextlib.aclosing(self._changes()) as changes:
                    async for changed in changes:
                        wait_s = shortest_s
                        yield changed
            except StoreUnavailable:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, longest_s)

    async def _changes(self) -> AsyncGenerator[str, None]:
        async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
            async with bounded(self._timeout_s):
                await subscription.subscribe(_KEYS)
            yield ALL_KEYS
            while True:
                async with bounded(_POLL_S + self._timeout_s):
                    message = await subscription.get_message(timeout=_POLL_S)
                if message is not None:
                    yield message["data"].decode()

    async def _put(self, record: KeyRecord) -> None:
        async with bounded(self._timeout_s), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(_KEYS, record.hash, msgspec.json.encode(record))
            pipeline.publish(_KEYS, record.hash)
            await pipeline.execute()


async def _answer(command: Any) -> Any:
    """redis-py types the commands of both its clients alike, awaitable or not; here they always are."""
    return await command


def _decode(stored: bytes) -> KeyRecord:
    try:
        return msgspec.json.decode(stored, type=KeyRecord)
    except msgspec.DecodeError as error:
        raise StoreUnavailable(f"a key record can't be read: {error}") from error
