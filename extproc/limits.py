"""The vocabulary of limits: what is limited, what one request is charged, what the store says to that.

Shared by the policy, which decides what is charged, and the stores, which do the charging. All amounts are whole
numbers: tokens, requests, slots, and money in billionths of its currency. Knows nothing of Redis or of HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

MOST_EXACT = 1 << 52
"""Redis computes in doubles: whole numbers up to here are exact there, with room to add two of them."""

TAG = "{extproc}"
"""The hash tag of every key here: on a Redis Cluster all limits of a request must be in one slot."""

SLOTS = 20
"""A sliding window is counted in so many slots; it forgets with the precision of one of them."""

FOREVER_MS = 1 << 40
"""The wait for what never comes back by itself (a budget for all time)."""

PERCENT = 100
"""Limits are scaled in hundredths, and a bucket's refill is divisible by them: scaling changes no counter's unit."""

LONGEST_ELASTIC_MS = 3_600_000
"""Limits in a longer window are somebody's quota rather than a rate: they are never scaled down."""

# The precision of a token bucket's clock: the finest at which its arithmetic stays exact.
_TICKS_MS = (1, 10, 100, 1000)


class Measure(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CONCURRENT = "concurrent"
    MONEY = "money"


class Kind(IntEnum):
    """How it is counted; the numbers are known to the scripts in `stores/lua`."""

    BUCKET = 1
    SLIDING = 2
    PERIOD = 3
    GAUGE = 4


class Period(IntEnum):
    """The calendar period of a budget, in UTC; the numbers are known to the scripts in `stores/lua`."""

    DAY = 1
    MONTH = 2
    TOTAL = 3


class Limit(Struct, frozen=True):
    """`amount` of something. `a` and `b` are the kind's own numbers:

    BUCKET: `a` units come back every `b` ticks of `tick_ms`; SLIDING: `a` ms a slot, `b` slots; PERIOD: `a` which one.
    `name` is the label of metrics; `soft` is what must be used to be worth telling. `full` is the amount of a limit
    that was scaled down, 0 of one that was not; `elastic`: it may be.
    """

    name: str
    measure: Measure
    kind: Kind
    amount: int
    a: int = 0
    b: int = 1
    tick_ms: int = 1
    shadow: bool = False
    soft: int = 0
    elastic: bool = False
    full: int = 0

    @property
    def most(self) -> int:
        """The largest charge that ever fits: one beyond a scaled amount has to wait until nothing else is in it."""
        return self.full or self.amount

    @property
    def sticky(self) -> bool:
        """Charged for the attempt, even if another limit refuses the request."""
        return self.measure is Measure.REQUESTS

    def share(self, replicas: int) -> Limit:
        """What one of `replicas` may use of it on its own; never nothing. For Python's counting alone."""
        if replicas <= 1:
            return self
        amount = max(1, self.amount // replicas)
        if self.kind is Kind.BUCKET:
            return replace(self, amount=amount, b=self.b * replicas, full=0)
        return replace(self, amount=amount, soft=self.soft // replicas, full=0)

    def scaled(self, percent: int, *, slower: bool) -> Limit:
        """What holds of it under pressure; never nothing. `slower`: a bucket refills less, too.

        That is for counters of one tier alone. One that several tiers share goes on refilling as it does, and each
        of them may only fill it so far. A counter's state means the same whatever it is scaled to, so that replicas
        which don't agree at a moment still count together: none ever admits beyond the unscaled limit.
        """
        if percent >= PERCENT or not self.elastic:
            return self
        refill = self.a * percent // PERCENT if slower and self.kind is Kind.BUCKET else self.a
        return replace(self, amount=max(1, self.amount * percent // PERCENT), a=refill, full=self.amount)

    def unscaled(self) -> Limit:
        """With its whole amount, for what is admitted already."""
        return replace(self, amount=self.full, full=0) if self.full else self


def bucket(name: str, measure: Measure, amount: int, window_ms: int, *, shadow: bool = False) -> Limit:
    """A token bucket (GCRA): holds `amount`, and refills in `window_ms`. Raises ValueError if it can't be exact."""
    elastic = window_ms <= LONGEST_ELASTIC_MS
    parts = PERCENT if elastic else 1
    for tick_ms in _TICKS_MS:
        ticks = window_ms // tick_ms
        if ticks * tick_ms != window_ms:
            break
        divisor = math.gcd(amount, ticks)
        a, b = amount // divisor * parts, ticks // divisor * parts
        if amount * b <= MOST_EXACT:
            return Limit(name, measure, Kind.BUCKET, amount, a, b, tick_ms, shadow, elastic=elastic)
    raise ValueError(f"{amount} in {window_ms} ms can't be counted exactly; choose a rounder amount")


def sliding(name: str, measure: Measure, amount: int, window_ms: int, *, shadow: bool = False) -> Limit:
    """A sliding window: in no stretch of `window_ms` is more than `amount` used."""
    elastic = window_ms <= LONGEST_ELASTIC_MS
    return Limit(name, measure, Kind.SLIDING, amount, -(-window_ms // SLOTS), SLOTS, 1, shadow, elastic=elastic)


def gauge(name: str, amount: int, *, shadow: bool = False) -> Limit:
    """So many at a time."""
    return Limit(name, Measure.CONCURRENT, Kind.GAUGE, amount, shadow=shadow, elastic=True)


def budget(name: str, amount: int, period: Period, *, soft: int = 0, shadow: bool = False) -> Limit:
    """So much money in each calendar period."""
    return Limit(name, Measure.MONEY, Kind.PERIOD, amount, period, shadow=shadow, soft=soft)


def key_of(limit: Limit, subject: str) -> str:
    """The counter of one limit and one subject. A limit that is now counted otherwise, under its old name, begins anew:
    nothing could read what it left."""
    return f"{TAG}:{limit.name}:{limit.measure}-{limit.kind.name.lower()}:{subject}"


class Charge(Struct, frozen=True):
    """One limit applied to one request: `cost` is taken now, `floor` is kept if nobody ever says what it really was."""

    key: str
    limit: Limit
    cost: int
    floor: int = 0


class State(Struct, frozen=True):
    """One limit after it was asked: what is left, when it is whole again, and the wait if the charge didn't fit.

    `wait_ms` 0: it fits; -1: it never will.
    """

    remaining: int
    reset_ms: int
    wait_ms: int = 0


class Admission(Struct, frozen=True):
    """What the store says to a reservation. `states` are in the order of the charges.

    `retry_ms` is how long to wait until the same charges fit, as far as is known now; -1: they never will.
    `shared`: Redis is lost, and this is this replica's share of the limits speaking.
    """

    admitted: bool
    retry_ms: int
    states: tuple[State, ...]
    shared: bool = False


class Lost(StrEnum):
    """What holds while Redis is lost: this replica's share of each limit, or nothing passes."""

    SHARE = "share"
    CLOSED = "closed"


class Limiter(Protocol):
    """Where reservations are made. Every reservation that was admitted must be settled."""

    async def reserve(self, reservation: str, charges: Sequence[Charge], ttl_s: float, lost: Lost) -> Admission:
        """Take all charges or none but the sticky ones. Raises DependencyError when Redis is lost and so is `lost`."""

    async def attempt(self, charges: Sequence[Charge], lost: Lost) -> Admission:
        """Take charges that are never given back, if they fit."""

    async def extend(self, reservation: str, more: Sequence[int]) -> bool:
        """Draw more of each charge of a reservation, all or nothing. False: a limit is spent."""

    async def settle(self, reservation: str, actual: Sequence[int]) -> None:
        """What each charge really was. Only the first call for a reservation counts; never fails."""
