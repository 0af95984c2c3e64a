"""What came of each request of an experiment, read from usage records (proto: extproc.v1.UsageEvent).

Owns which records count for what. Must not know: where they come from, or what is concluded from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

_FAILED = frozenset({"UPSTREAM_ERROR", "INTERNAL_ERROR"})
_SERVED = frozenset({"COMPLETED", "CANCELLED"})
_GUARDED = frozenset({"injection", "indirect_injection", "content_rule"})


class Outcome(Struct, frozen=True):
    """One request. What does not apply to it is None.

    `failed`: of what went to a model (a refusal didn't, nor did what a cache knew; a client that left is no failure).
    What another pool had to answer, because the arm's failed, is the arm's failure, however well the other one did.
    `guarded`: found to be an attack, or stopped by a content rule. Times are milliseconds, of whole answers by models.
    Tokens are those on record, however it ended, and whoever answered.
    """

    id: str
    time_s: float
    team: str
    arm: str
    subject: str
    failed: bool | None
    guarded: bool
    cached: bool | None
    latency_ms: float | None
    ttft_ms: float | None
    prompt_tokens: int
    completion_tokens: int
    cost_nano: int
    currency: str

    @property
    def chosen(self) -> bool:
        """A tester chose the arm."""
        return not self.subject

    @property
    def is_whole(self) -> bool:
        """The arm's own model answered, to the end."""
        return self.latency_ms is not None


class Rating(Struct, frozen=True):
    """What a user of a team says of an answer."""

    request: str
    team: str
    score: float


def outcome_of(record: Mapping[str, Any], experiment: str) -> Outcome | None:
    """None: the record is of no request of this experiment. Raises ValueError for one that can't be read."""
    name, _, arm = str(record.get("arm") or "").partition("/")
    if name != experiment:
        return None
    termination = record.get("termination")
    cached = record.get("cache") in ("hit", "semantic")
    stood_in = bool(record.get("fallback_from"))
    by_model = not cached and (stood_in or termination in _FAILED or termination in _SERVED)
    whole = by_model and termination == "COMPLETED" and not stood_in
    return Outcome(
        str(record["id"]),
        float(record.get("time") or 0),
        str(record.get("team") or ""),
        arm,
        str(record.get("subject") or ""),
        stood_in or termination in _FAILED if by_model else None,
        bool(record.get("guard_over")) or record.get("reason") in _GUARDED,
        cached if record.get("cache") in ("hit", "semantic", "miss") else None,
        float(record.get("duration_ms") or 0) if whole else None,
        float(record["ttft_ms"]) if whole and record.get("ttft_ms") else None,
        int(record.get("prompt_tokens") or 0),
        int(record.get("completion_tokens") or 0),
        int(record.get("price_nano") or 0),
        str(record.get("currency") or ""),
    )


def rating_of(record: Mapping[str, Any]) -> Rating | None:
    """None: the record is of no feedback that was taken."""
    if not record.get("rated") or record.get("termination") != "COMPLETED":
        return None
    return Rating(str(record["rated"]), str(record.get("team") or ""), float(record.get("score") or 0))
