"""The usage ledger in Redis: one record per request, each id once, trimmed by age and length.

Owns the stream, its fields and its ids. Must not know: where records come from or what they are summed up to.

Both keys have the hash tag `{extproc}`, so on a Redis Cluster they lie on one node, as one script needs them.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from extproc.stores.connection import bounded, connect

STREAM = "{extproc}:ledger"
IDS = "{extproc}:ledger:ids"
FIELDS = (
    "id",
    "time",
    "principal",
    "team",
    "tier",
    "model",
    "operation",
    "pool",
    "fallback_from",
    "served_model",
    "cascade",
    "cascade_reason",
    "tried_model",
    "tried_tokens",
    "tried_nano",
    "arm",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "price_nano",
    "currency",
    "duration_ms",
    "ttft_ms",
    "status",
    "termination",
    "reason",
    "cache",
    "saved_tokens",
    "priority",
    "queued_ms",
    "subject",
    "guard_over",
    "rated",
    "score",
)
"""Of a usage event, those that are kept (proto: extproc.v1.UsageEvent)."""

_PAGE = 500
_SKEW_MS = 60_000
_MS_PER_DAY = 86_400_000


class Retention(Struct, frozen=True):
    """What is kept."""

    max_age_days: int
    max_records: int


class Extent(Struct, frozen=True):
    """How much there is, and how much there was and has been trimmed."""

    records: int
    trimmed: int


class Ledger:
    """Every method raises StoreUnavailable or StoreTimeout, within `timeout_s` for each round trip."""

    def __init__(self, url: str, timeout_s: float, retention: Retention) -> None:
        self._redis = connect(url, timeout_s)
        self._timeout_s = timeout_s
        script = importlib.resources.files("extproc.stores").joinpath("lua", "ledger.lua").read_text()
        self._append = self._redis.register_script(script)
        self._head = (retention.max_age_days * _MS_PER_DAY, retention.max_records, len(FIELDS), *FIELDS)

    async def close(self) -> None:
        await self._redis.aclose()

    async def append(self, events: Sequence[Mapping[str, Any]]) -> int:
        """Record these usage events, save those whose id is there already; how many were new.

        All or nothing, and again is harmless, so whoever does not know whether it was done does it again.
        """
        values = [_text(event.get(name)) for event in events for name in FIELDS]
        async with bounded(self._timeout_s):
            return int(await self._append(keys=(STREAM, IDS), args=(*self._head, *values)))

    async def extent(self) -> Extent:
        async with bounded(self._timeout_s):
            if not await self._redis.exists(STREAM):
                return Extent(0, 0)
            info = await self._redis.xinfo_stream(STREAM)
        return Extent(info["length"], info["entries-added"] - info["length"])

    async def pages_after(self, entry: str) -> AsyncIterator[tuple[str, Sequence[Mapping[str, str]]]]:
        """Every record after this entry (its id, or Unix milliseconds), page by page, each with its last entry's id."""
        while True:
            async with bounded(self._timeout_s):
                entries: Any = await self._redis.xrange(STREAM, f"({entry}", "+", _PAGE)
            if entries:
                entry = entries[-1][0].decode()
                yield entry, [_record(fields) for _, fields in entries]
            if len(entries) < _PAGE:
                return

    async def pages(self, since_s: float | None = None) -> AsyncIterator[Sequence[Mapping[str, str]]]:
        """Every record, page by page in the order of writing; none from before `since_s` is sure to be left out.

        A record is written after its request has arrived, so reading may begin there; how long after, nobody knows.
        """
        start = "-" if since_s is None else str(max(int(since_s * 1000) - _SKEW_MS, 0))
        while True:
            async with bounded(self._timeout_s):
                entries: Any = await self._redis.xrange(STREAM, start, "+", _PAGE)
            if entries:
                yield [_record(fields) for _, fields in entries]
            if len(entries) < _PAGE:
                return
            start = "(" + entries[-1][0].decode()


def _record(fields: Mapping[bytes, bytes]) -> Mapping[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}


def _text(value: Any) -> str:
    return "" if value is None else str(value)
