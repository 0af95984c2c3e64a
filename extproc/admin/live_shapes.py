"""What the live view shows, as types: `GET /api/v1/live` (its JSON Schema is in `/openapi.json`).

Rates are per second. Durations are in seconds where a name ends in `_s`. null: not known.
"""

from __future__ import annotations

from msgspec import Struct

from extproc.admin.decisions import Decision
from extproc.admin.shapes import Running


class History(Struct, frozen=True, kw_only=True):
    """Columns of equal length, oldest first. `at`: Unix seconds at which each interval ended.

    `cache_hits` is a share, and like the quantiles over the last minute; all else are rates over the interval.
    """

    at: tuple[float, ...]
    requests: tuple[float, ...]
    rejected: tuple[float, ...]
    failed: tuple[float, ...]
    tokens_in: tuple[float, ...]
    tokens_out: tuple[float, ...]
    cache_hits: tuple[float | None, ...]
    first_token_p95_s: tuple[float | None, ...]
    duration_p95_s: tuple[float | None, ...]


class Distribution(Struct, frozen=True, kw_only=True):
    """Observations of the window. `counts[i]` lie at or below `bounds_s[i]` and above the one before; the last count,
    which has no bound, above them all. Quantiles are interpolated within a bucket."""

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


class Outcome(Struct, frozen=True, kw_only=True):
    """Requests of the window that ended so."""

    termination: str
    count: int


class Lookup(Struct, frozen=True, kw_only=True):
    """Lookups of the window in one cache that ended so."""

    level: str
    result: str
    count: int


class Verdict(Struct, frozen=True, kw_only=True):
    """Decisions of one policy other than to go on: in the window, and since the start."""

    policy: str
    verdict: str
    mode: str
    reason: str
    recent: int
    total: int


class Spend(Struct, frozen=True, kw_only=True):
    """What a team used since the service started. `cost` is by currency."""

    team: str
    requests: int
    tokens: int
    cost: dict[str, float]


class Endpoint(Struct, frozen=True, kw_only=True):
    """One model server, and what it last said of itself; `age_s` null: nothing lately, or nobody asks."""

    address: str
    cluster: str
    weight: int
    pressure: float | None
    queued: float | None
    running: float | None
    gpu: float | None
    kv_cache: float | None
    age_s: float | None


class Pool(Struct, frozen=True, kw_only=True):
    """`pressure` 0 to 1; `level` of adaptive limits; `measured`: some server of it shows its metrics."""

    name: str
    dialect: str
    model: str
    measured: bool
    pressure: float | None
    level: int
    endpoints: tuple[Endpoint, ...]


class Queue(Struct, frozen=True, kw_only=True):
    """One class of priority in the line before a pool. Now, of all replicas: requests at work with their tokens, and
    how many wait. In the window, of this service: let in at once, let in after a wait, and sent away."""

    pool: str
    priority: str
    requests: int
    tokens: int
    waiting: int
    at_once: int
    waited: int
    refused: int


class Wait(Struct, frozen=True, kw_only=True):
    """Waits of a class in the window, before whichever pool; `position_p95`: the place in which one came to wait."""

    priority: str
    p50_s: float | None
    p95_s: float | None
    position_p95: float | None


class Arm(Struct, frozen=True, kw_only=True):
    """One arm of an experiment since the service started. `low` and `high`: where the share of completed requests lies
    with 95 % confidence (Wilson), looked at once; `extproc ab report` may be looked at any time."""

    experiment: str
    arm: str
    requests: int
    completed: float
    low: float
    high: float
    first_token_p50_s: float | None


class Live(Struct, frozen=True, kw_only=True):
    """One moment of one service, over all its workers. `window_s`: how long the window was, up to a minute.

    `recording`: decisions and spend are known, because there is a ledger. `ledger_waiting_bytes`: not there yet.
    """

    at: float
    started_at: float
    window_s: float
    process: Running
    degraded: tuple[str, ...]
    in_flight: int
    history: History
    duration: Distribution
    first_token: Distribution
    outcomes: tuple[Outcome, ...]
    lookups: tuple[Lookup, ...]
    saved_tokens: int
    verdicts: tuple[Verdict, ...]
    recording: bool
    ledger_waiting_bytes: int
    spend: tuple[Spend, ...]
    pools: tuple[Pool, ...]
    queues: tuple[Queue, ...]
    waits: tuple[Wait, ...]
    arms: tuple[Arm, ...]
    decisions: tuple[Decision, ...]
