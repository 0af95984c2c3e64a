"""What the last audit record was, again and again, kept where whoever can write the audit directory can't.

One Redis stream per chain; an anchor's id is its record's number, so Redis itself refuses to go back. One hash says
which chain is kept at which place. Must not know: what is in a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.exceptions import ResponseError

from extproc.stores.connection import bounded, connect

_CHAINS = "extproc:audit:chains"
_MOST_ANCHORS = 10_000


class AuditAnchors:
    """Every method raises StoreUnavailable or StoreTimeout, within `timeout_s`."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._redis = connect(url, timeout_s)

    async def close(self) -> None:
        await self._redis.aclose()

    async def put(self, chain: str, place: str, seq: int, mac: str) -> bool:
        """Anchor a chain's last record. False: Redis knows of a later one, or of another with this number."""
        stream = _stream(chain)
        async with bounded(self._timeout_s):
            await _answer(self._redis.hset(_CHAINS, chain, place))
            try:
                await self._redis.xadd(stream, {"mac": mac}, id=f"{seq}-0", maxlen=_MOST_ANCHORS, approximate=True)
            except ResponseError:  # not above the last one
                last: Any = await self._redis.xrevrange(stream, count=1)
                return bool(last == [(f"{seq}-0".encode(), {b"mac": mac.encode()})])
        return True

    async def of_chain(self, chain: str) -> Mapping[int, str]:
        """The macs of a chain's anchored records, by their number; the oldest are forgotten."""
        async with bounded(self._timeout_s):
            found: Any = await self._redis.xrange(_stream(chain))
        return {int(number.partition(b"-")[0]): fields[b"mac"].decode() for number, fields in found}

    async def chains_at(self, place: str) -> frozenset[str]:
        """Every chain that was ever kept at this place."""
        async with bounded(self._timeout_s):
            found = await _answer(self._redis.hgetall(_CHAINS))
        return frozenset(chain.decode() for chain, kept in found.items() if kept.decode() == place)


def _stream(chain: str) -> str:
    return f"extproc:audit:anchors:{chain}"


async def _answer(command: Any) -> Any:
    """redis-py types the commands of both its clients alike, awaitable or not; here they always are."""
    return await command
