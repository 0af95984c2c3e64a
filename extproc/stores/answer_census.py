"""What is kept of whom, and how to be rid of it: for people, not for the request path.

Owns how entries are found by tenant, model and namespace. Must not know: what an answer is.
"""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from extproc.stores.answers import PREFIX
from extproc.stores.connection import bounded, connect

_PAGE = 500
_SCRIPTS = pathlib.Path(__file__).parent / "lua"


class Which(Struct, frozen=True):
    """None: any. A tenant is meant by its name, with or without what it is (`team:`, `principal:`)."""

    tenant: str | None = None
    model: str | None = None
    namespace: str | None = None

    def takes_tenant(self, tenant: str) -> bool:
        return self.tenant is None or self.tenant in (tenant, tenant.partition(":")[2])

    def takes(self, model: str, namespace: str) -> bool:
        return self.model in (None, model) and self.namespace in (None, namespace)


class Held(Struct):
    """How much of one tenant's, model's and namespace's answers there is."""

    entries: int = 0
    size_bytes: int = 0


class AnswerCensus:
    """Every method raises StoreUnavailable or StoreTimeout; each round trip has `timeout_s`."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._redis: Any = connect(url, timeout_s)  # its types say that commands are awaitable or not
        self._delete = (_SCRIPTS / "answers.lua").read_text() + (_SCRIPTS / "answer_delete.lua").read_text()

    async def close(self) -> None:
        await self._redis.aclose()

    async def held(self, which: Which) -> dict[tuple[str, str, str], Held]:
        """By tenant, model and namespace. What has expired does not count."""
        found: dict[tuple[str, str, str], Held] = {}
        async for tenant, prefix in self._tenants(which):
            async for entries in self._entries(prefix, which):
                async with bounded(self._timeout_s):
                    sizes = await self._redis.hmget(prefix + b"sizes", entries)
                for entry, size in zip(entries, sizes, strict=True):
                    held = found.setdefault((tenant, *_names(entry)), Held())
                    held.entries += 1
                    held.size_bytes += int(size or 0)
        return found

    async def purge(self, which: Which) -> int:
        """Forget them, with their vectors; how many there were."""
        gone = 0
        async for _, prefix in self._tenants(which):
            entries = [entry async for page in self._entries(prefix, which) for entry in page]
            for page in _pages(entries):
                async with bounded(self._timeout_s):
                    gone += await self._redis.eval(self._delete, 1, prefix, *page)
        return gone

    async def _tenants(self, which: Which) -> AsyncIterator[tuple[str, bytes]]:
        cursor = 0
        while True:
            async with bounded(self._timeout_s):
                cursor, keys = await self._redis.scan(cursor, match=f"{PREFIX}{{*}}:expiry", count=_PAGE)
            for key in sorted(set(keys)):
                tenant = unquote(key[len(PREFIX) + 1 : -len("}:expiry")].decode())
                if which.takes_tenant(tenant):
                    yield tenant, key.removesuffix(b"expiry")
            if cursor == 0:
                return

    async def _entries(self, prefix: bytes, which: Which) -> AsyncIterator[list[bytes]]:
        """Page after page. Of a store in use it is no exact picture: entries come and go meanwhile."""
        async with bounded(self._timeout_s):
            seconds, microseconds = await self._redis.time()
        now_ms, start = seconds * 1000 + microseconds // 1000, 0
        while True:
            async with bounded(self._timeout_s):
                page = await self._redis.zrangebyscore(prefix + b"expiry", f"({now_ms}", "+inf", start, _PAGE)
            taken = [entry for entry in page if which.takes(*_names(entry))]
            if taken:
                yield taken
            if len(page) < _PAGE:
                return
            start += _PAGE


def _names(entry: bytes) -> tuple[str, str]:
    model, namespace, _ = entry.decode().split("/")
    return unquote(model), unquote(namespace)


def _pages(entries: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(entries), _PAGE):
        yield entries[start : start + _PAGE]
