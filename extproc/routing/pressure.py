"""How much pressure a pool is under, and which level follows from that.

Pure: what servers say of themselves in, a number from 0 to 1 and a level out. The level has hysteresis, so that a
pressure that wavers changes nothing. Must not know: where metrics come from, nor what is done at a level.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct

from extproc.config.pools import PressureSignal

CALM = 0
"""The level at which nothing is limited further."""


class EndpointLoad(Struct, frozen=True):
    """What one server said of one model, None where it said nothing.

    `queued` and `running` are requests; `kv_cache`, `gpu` and `gpu_memory` shares of what there is, 0 to 1. `at_s` is
    monotonic time.
    """

    at_s: float
    queued: float | None = None
    running: float | None = None
    kv_cache: float | None = None
    gpu: float | None = None
    gpu_memory: float | None = None

    def pressure(self, signals: Iterable[PressureSignal], full_queue: int) -> float | None:
        """The highest of `signals`, 0 to 1; None if nothing is known of any."""
        known = [value for signal in signals if (value := self._signal(signal, full_queue)) is not None]
        return min(1.0, max(0.0, *known)) if known else None

    def _signal(self, signal: PressureSignal, full_queue: int) -> float | None:
        if signal is PressureSignal.GPU:
            return self.gpu
        if signal is PressureSignal.KV_CACHE:
            return self.kv_cache
        return None if self.queued is None else self.queued / full_queue


def mean_pressure(weighted: Iterable[tuple[float, float | None]]) -> float | None:
    """What a request meets on average, of (weight, pressure) of each server. Of whom nothing is known is left out."""
    known = [(weight, pressure) for weight, pressure in weighted if pressure is not None and weight > 0]
    total = sum(weight for weight, _ in known)
    return sum(weight * pressure for weight, pressure in known) / total if total else None


class Rung(Struct, frozen=True):
    """Entered at a pressure of `enter` or more, left at `leave` or less."""

    enter: float
    leave: float


class Ladder(Struct, frozen=True):
    """Every level above `CALM`, in order; times in seconds."""

    rungs: tuple[Rung, ...] = ()
    dwell_s: float = 0.0
    hold_unknown_s: float = 0.0


class Levels:
    """The level of one pool, as its pressure comes in.

    Up one level at once, with every measurement that calls for it: the lowest tier feels it first. Down one level when
    the pressure has been low for `dwell_s` without a break. Nothing known changes nothing for `hold_unknown_s`; after
    that it counts as no pressure: limits without a reason would be an outage of our own making.
    """

    def __init__(self, ladder: Ladder, level: int = CALM) -> None:
        self._ladder = ladder
        self.level = min(level, len(ladder.rungs))
        self._calm_since_s: float | None = None
        self._unknown_since_s: float | None = None

    def update(self, pressure: float | None, now_s: float) -> int:
        """Take one measurement; the level from now on."""
        if pressure is None and self._holds(now_s):
            self._calm_since_s = None
            return self.level
        if pressure is not None:
            self._unknown_since_s = None
        self._move(pressure or 0.0, now_s)
        return self.level

    def _holds(self, now_s: float) -> bool:
        if self._unknown_since_s is None:
            self._unknown_since_s = now_s
        return now_s - self._unknown_since_s < self._ladder.hold_unknown_s

    def _move(self, pressure: float, now_s: float) -> None:
        rungs = self._ladder.rungs
        if self.level < len(rungs) and pressure >= rungs[self.level].enter:
            self.level += 1
            self._calm_since_s = None
        elif self.level == CALM or pressure > rungs[self.level - 1].leave:
            self._calm_since_s = None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        elif now_s - self._calm_since_s >= self._ladder.dwell_s:
            self.level -= 1
            self._calm_since_s = now_s


class Pressure(Protocol):
    """What policies may ask."""

    def level(self, pool: str) -> int:
        """The level that holds for this pool; `CALM` for one that nobody measures."""


class Calm:
    """Nobody measures."""

    def level(self, pool: str) -> int:
        return CALM
