"""The section `policies.admit` of gateway.yaml: how much a pool takes at a time, and who goes first when it is full.

Must not know: how a line is kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Literal

import pydantic

from extproc.admission import Line, Priority
from extproc.config.policy import PolicySettings
from extproc.config.section import Name, Section
from extproc.limits import Lost

PriorityName = Literal["P0", "P1", "P2", "P3"]
_Amount = Annotated[int, pydantic.Field(ge=1, le=1_000_000_000)]
_Share = Annotated[float, pydantic.Field(gt=0, le=1)]
_Weight = Annotated[int, pydantic.Field(ge=1, le=1000)]
_Wait = Annotated[float, pydantic.Field(ge=0.05, le=3600)]


class Capacity(Section):
    """What one pool takes at a time. At least one of the two; a request needs room in both."""

    requests: _Amount | None = None
    """Requests at work in the pool at a time; null is no bound."""

    tokens: _Amount | None = None
    """Tokens of all requests at work, prompts and expected answers together; null is no bound."""

    queue_length: Annotated[int, pydantic.Field(ge=0, le=100_000)] = 256
    """So many requests wait for the pool at most, of all classes together."""

    @pydantic.model_validator(mode="after")
    def _bounded(self) -> Capacity:
        if self.requests is None and self.tokens is None:
            raise ValueError("give requests or tokens, or both")
        return self


class RealTime(Section):
    """P0: somebody waits for every word. It may use all of a pool."""

    weight: _Weight = 64
    """Its part of what becomes free, relative to the other classes that wait."""

    wait_s: _Wait = 5.0
    """Longest wait; then the request is refused with 503."""


class NearRealTime(Section):
    """P1."""

    weight: _Weight = 16
    """Its part of what becomes free, relative to the other classes that wait."""

    share: _Share = 1.0
    """It and the classes below it use no more than this part of a pool together: the rest is for those above."""

    wait_s: _Wait = 10.0
    """Longest wait; then the request is refused with 503."""


class Batch(Section):
    """P2."""

    weight: _Weight = 4
    """Its part of what becomes free, relative to the other classes that wait."""

    share: _Share = 0.9
    """It and the classes below it use no more than this part of a pool together: the rest is for those above."""

    wait_s: _Wait = 30.0
    """Longest wait; then the request is refused with 503."""


class Background(Section):
    """P3."""

    weight: _Weight = 1
    """Its part of what becomes free, relative to the other classes that wait."""

    share: _Share = 0.8
    """It and the classes below it use no more than this part of a pool together: the rest is for those above."""

    wait_s: _Wait = 30.0
    """Longest wait; then the request is refused with 503."""


class Classes(Section):
    """The four classes of priority."""

    P0: RealTime = RealTime()
    """Real-time."""

    P1: NearRealTime = NearRealTime()
    """Near-real-time."""

    P2: Batch = Batch()
    """Batch."""

    P3: Background = Background()
    """Background."""

    @pydantic.model_validator(mode="after")
    def _nested(self) -> Classes:
        if any(worse > better for better, worse in itertools.pairwise(self.shares)):
            raise ValueError("a lower class has at most the share of a higher one")
        return self

    @property
    def weights(self) -> tuple[int, ...]:
        return self.P0.weight, self.P1.weight, self.P2.weight, self.P3.weight

    @property
    def shares(self) -> tuple[float, ...]:
        return 1.0, self.P1.share, self.P2.share, self.P3.share

    @property
    def waits_s(self) -> tuple[float, ...]:
        return self.P0.wait_s, self.P1.wait_s, self.P2.wait_s, self.P3.wait_s


class TierClasses(Section):
    """The class of each tier: what its requests are, and the best that they may ask for."""

    free: PriorityName = "P3"
    """Of the tier `free`."""

    basic: PriorityName = "P2"
    """Of the tier `basic`."""

    pro: PriorityName = "P1"
    """Of the tier `pro`."""

    enterprise: PriorityName = "P0"
    """Of the tier `enterprise`."""

    def of(self, tier: str) -> Priority:
        """An unknown tier is treated as the lowest."""
        known = {"basic": self.basic, "pro": self.pro, "enterprise": self.enterprise}
        return Priority[known.get(tier, self.free)]


class Settings(PolicySettings):
    """Admission: so much at a time for each pool, and a fair line before it."""

    pools: Mapping[Name, Capacity] = {}
    """What each pool takes at a time; one that is not named takes everything at once."""

    tiers: TierClasses = TierClasses()
    """The class of each tier."""

    classes: Classes = Classes()
    """What the classes mean."""

    lease_s: Annotated[float, pydantic.Field(ge=3, le=3600)] = 10.0
    """What a killed worker held is free again after so long; living ones renew theirs every second."""

    redis_lost: Lost = Lost.SHARE
    """While Redis is lost: `share` lets each worker fill its part of every pool, `closed` refuses with 503."""

    @property
    def shapes_answers(self) -> bool:
        return False

    def line(self, pool: str) -> Line | None:
        """What holds before one pool; None where everything is let in."""
        capacity = self.pools.get(pool)
        if capacity is None:
            return None
        return Line(
            pool,
            tuple(_part(capacity.requests, share) for share in self.classes.shares),
            tuple(_part(capacity.tokens, share) for share in self.classes.shares),
            self.classes.weights,
            capacity.queue_length,
            int(self.lease_s * 1000),
        )


def _part(amount: int | None, share: float) -> int:
    """Never nothing, or the class would never be let in."""
    return 0 if amount is None else max(1, int(amount * share))
