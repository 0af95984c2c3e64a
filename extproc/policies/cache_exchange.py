"""What the caches know of one exchange. Must not know: where answers are kept."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from extproc.caching import EntryName, Quota
from extproc.policies.cache_embeddings import PartialEmbeddings
from extproc.policies.cache_entry import Collected


class CacheResult(StrEnum):
    """What the caches did for a request: sent as `x-extproc-cache`, in the usage event as `cache`."""

    HIT = "hit"
    SEMANTIC = "semantic"
    MISS = "miss"
    BYPASS = "bypass"


class Caching(Struct):
    """Made by `cache` for every request to a model; `semantic_cache` may change `result` to SEMANTIC.

    `name` is what the answer will be kept under, None if it won't be; `stored` says, at the end, that it is.
    `visible`: the client is told the result (not while the policy is only a shadow). `refreshes`: the client wants none
    that is kept (`cache-control: no-cache`); `max_age_s`: nor an older one than this. `token`: others wait for this
    answer, until the lead is released. `saved_tokens`: so many the model had no work with. `answered_by`: the entry
    that was served; `quota`: what its tenant may keep.
    """

    result: CacheResult = CacheResult.BYPASS
    visible: bool = True
    name: EntryName | None = None
    ttl_s: float = 0.0
    max_age_s: float | None = None
    refreshes: bool = False
    token: str = ""
    collected: Collected | None = None
    partial: PartialEmbeddings | None = None
    stored: bool = False
    saved_tokens: int = 0
    answered_by: EntryName | None = None
    quota: Quota | None = None

    @property
    def answered(self) -> bool:
        """No model was asked."""
        return self.result is CacheResult.HIT or self.result is CacheResult.SEMANTIC
