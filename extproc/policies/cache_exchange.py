"""What the caches know of one exchange. Must not know: where answers are kept."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from extproc.caching import EntryName


class CacheResult(StrEnum):
    """What the caches did for a request: sent as `x-extproc-cache`, in the usage event as `cache`."""

    HIT = "hit"
    SEMANTIC = "semantic"
    MISS = "miss"
    BYPASS = "bypass"


class Caching(Struct):
    """Made by `cache` for every request it could have to do with; `semantic_cache` may change `result` to SEMANTIC.

    `name` is what the answer will be kept under, None if it won't be; `stored` says, at the end, that it is.
    `visible`: the client is told the result (not while the policy is only a shadow).
    """

    result: CacheResult = CacheResult.BYPASS
    name: EntryName | None = None
    ttl_s: float = 0.0
    visible: bool = True
    refreshes: bool = False
    """The client wants none that is kept (`cache-control: no-cache`): no cache may answer it."""
    max_age_s: float | None = None
    """The oldest answer the client takes (`cache-control: max-age`)."""
    stored: bool = False
    saved_tokens: int = 0
