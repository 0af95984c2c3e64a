"""The section `policies.limit.adaptive` of gateway.yaml: how far limits go down when a pool is under pressure.

Owns the levels and each tier's share of its limits at them. Must not know: how pressure is measured, nor when a level
begins or ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Annotated

import pydantic

from extproc.config.section import Seconds, Section
from extproc.limits import PERCENT
from extproc.routing.pressure import Ladder, Rung

Share = Annotated[float, pydantic.Field(ge=0.01, le=1)]
Pressure = Annotated[float, pydantic.Field(ge=0, le=1)]
TIERS = ("free", "basic", "pro", "enterprise")
"""From the first to be limited to the last."""


class Shares(Section):
    """What is left of the limits of each tier, in hundredths."""

    free: Share = 1.0
    """Of the tier `free`."""

    basic: Share = 1.0
    """Of the tier `basic`."""

    pro: Share = 1.0
    """Of the tier `pro`."""

    enterprise: Share = 1.0
    """Of the tier `enterprise`."""

    def percent(self, tier: str) -> int:
        shares = {"free": self.free, "basic": self.basic, "pro": self.pro, "enterprise": self.enterprise}
        return round(shares[tier] * PERCENT)


class Level(Section):
    """One step down."""

    enter: Pressure
    """The level begins when the pool's pressure is as high as this."""

    leave: Pressure
    """It ends when the pressure has been no higher than this for `dwell_s`."""

    shares: Shares
    """What is left of each tier's limits. A lower tier never has a larger share left than a higher one."""


_DEFAULT_LEVELS = (
    Level(enter=0.7, leave=0.5, shares=Shares(free=0.5)),
    Level(enter=0.85, leave=0.65, shares=Shares(free=0.25, basic=0.5)),
    Level(enter=0.95, leave=0.75, shares=Shares(free=0.1, basic=0.25, pro=0.5)),
)


class Adaptive(Section):
    """Limits that go down while the model servers are busy. Needs `metrics` on the clusters of the pools."""

    levels: Annotated[tuple[Level, ...], pydantic.Field(min_length=1, max_length=10)] = _DEFAULT_LEVELS
    """From the least pressure to the most. They are entered and left one at a time."""

    dwell_s: Seconds = 15.0
    """So long the pressure has to stay low before a level is left, and as long again before the next."""

    hold_unknown_s: Seconds = 60.0
    """While no server of a pool says how it is, its level stays for so long, and then goes down by `dwell_s`."""

    @pydantic.model_validator(mode="after")
    def _orderly(self) -> Adaptive:
        for problem in _disorder(self.levels):
            raise ValueError(problem)
        return self

    @property
    def ladder(self) -> Ladder:
        rungs = tuple(Rung(level.enter, level.leave) for level in self.levels)
        return Ladder(rungs, self.dwell_s, self.hold_unknown_s)

    def percent(self, level: int, tier: str) -> int:
        """What is left of this tier's limits; an unknown tier is treated as the lowest."""
        if level == 0:
            return PERCENT
        known = tier if tier in TIERS else TIERS[0]
        return self.levels[min(level, len(self.levels)) - 1].shares.percent(known)


def _disorder(levels: Sequence[Level]) -> Iterator[str]:
    for level in levels:
        if level.leave >= level.enter:
            yield "a level is left at a lower pressure than it is entered at"
        shares = [level.shares.percent(tier) for tier in TIERS]
        if shares != sorted(shares):
            yield "a lower tier has at most the share of a higher one"
    for lower, higher in itertools.pairwise(levels):
        if higher.enter <= lower.enter or higher.leave < lower.leave:
            yield "each level is entered and left at a higher pressure than the one before"
        if any(higher.shares.percent(tier) > lower.shares.percent(tier) for tier in TIERS):
            yield "no tier has a larger share at a higher level"
