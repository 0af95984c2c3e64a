"""What to load and what to unload next on a mesh's servers. Pure: what is known of its models in, one step out.

- Nobody is unloaded in vain: only if what goes makes enough room for the model that is wanted.
- The least recently used goes first; one that is kept or in use never does.
- Who has waited longest is served first, and a smaller one behind it takes no room that it needs.
- A model that is never idle can't hold its place for ever: when somebody has waited for `turn_ms` it is drained.

Must not know: what a step takes to be done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, auto

from msgspec import Struct

from extproc.model_mesh import OCCUPYING, State

_THERE = (State.LOADED, State.DRAINING)


class Model(Struct, frozen=True):
    """One model as it is now. Times are of one clock; `wanted_ms` is when the first of those came who wait."""

    name: str
    state: State
    memory_mb: int = 0
    keep: bool = False
    used_ms: int = 0
    in_use: int = 0
    waiting: int = 0
    wanted_ms: int = 0
    retry_ms: int = 0
    """Not to be tried again before that, if it failed."""
    to_go: bool = False
    """An operator wants it unloaded."""

    @property
    def movable(self) -> bool:
        return self.state in _THERE and not self.keep


class Room(Struct, frozen=True):
    """What a server has room for; None is no bound."""

    models: int | None = None
    memory_mb: int | None = None

    def holds(self, models: Sequence[Model]) -> bool:
        if self.models is not None and len(models) > self.models:
            return False
        return self.memory_mb is None or sum(model.memory_mb for model in models) <= self.memory_mb


class Do(Enum):
    """What can be done with a model."""

    LOAD = auto()
    UNLOAD = auto()
    DRAIN = auto()
    """Send it nothing new."""
    RESUME = auto()
    """Use it again: nobody needs its room any more."""


class Step(Struct, frozen=True):
    do: Do
    model: str


def next_step(models: Sequence[Model], room: Room, now_ms: int, turn_ms: int) -> Step | None:
    """What to do now; None: nothing, or nothing yet."""
    for model in models:
        if model.to_go and model.movable and not model.in_use:
            return Step(Do.UNLOAD, model.name)
    want = _wanted(models, now_ms)
    if want is not None and not room.holds([*_occupying(models), want]):
        return _make_room(want, models, room, now_ms - want.wanted_ms >= turn_ms)
    for model in models:
        if model.state is State.DRAINING:
            return Step(Do.RESUME, model.name)
    return None if want is None else Step(Do.LOAD, want.name)


def _wanted(models: Sequence[Model], now_ms: int) -> Model | None:
    """Who is to be loaded next: one that is kept, or else who has waited longest."""
    failed_lately = (model.state is State.FAILED and model.retry_ms > now_ms for model in models)
    able = [model for model, failed in zip(models, failed_lately, strict=True) if not failed]
    wants = [model for model in able if model.state not in OCCUPYING and (model.keep or model.waiting)]
    return min(wants, key=lambda model: (not model.keep, model.wanted_ms), default=None)


def _occupying(models: Sequence[Model]) -> list[Model]:
    return [model for model in models if model.state in OCCUPYING]


def _make_room(want: Model, models: Sequence[Model], room: Room, waited_enough: bool) -> Step | None:
    if any(model.state in (State.LOADING, State.UNLOADING) for model in models):
        return None  # what becomes of it is not known yet
    # One that is drained already goes before another begins to be.
    order = sorted(
        (model for model in models if model.movable), key=lambda model: (model.state is State.LOADED, model.used_ms)
    )
    idle = _enough([model for model in order if not model.in_use], want, models, room)
    if idle:
        return Step(Do.UNLOAD, idle[0].name)
    return next(_drain(_enough(order, want, models, room)), None) if waited_enough else None


def _drain(leaving: Sequence[Model]) -> Iterator[Step]:
    for model in leaving:
        if model.state is State.LOADED:
            yield Step(Do.DRAIN, model.name)


def _enough(candidates: Sequence[Model], want: Model, models: Sequence[Model], room: Room) -> Sequence[Model]:
    """As many of the first candidates as have to go; none if all of them are not enough."""
    staying = [*_occupying(models), want]
    for count, model in enumerate(candidates, 1):
        staying.remove(model)
        if room.holds(staying):
            return candidates[:count]
    return ()
