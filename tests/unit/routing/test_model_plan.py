"""Which model is loaded next, and which goes for it."""

from __future__ import annotations

import pytest

from extproc.model_mesh import State
from extproc.routing.model_plan import Do, Model, Room, Step, next_step

NOW_MS, TURN_MS = 100_000, 10_000
ONE, TWO = Room(models=1), Room(models=2)


def there(name: str, used_ms: int = 0, *, in_use: int = 0, keep: bool = False, memory_mb: int = 0) -> Model:
    return Model(name, State.LOADED, memory_mb, keep, used_ms, in_use)


def wanted(name: str, wanted_ms: int = NOW_MS, *, memory_mb: int = 0, state: State = State.ABSENT) -> Model:
    return Model(name, state, memory_mb, waiting=1, wanted_ms=wanted_ms)


def step(*models: Model, room: Room = ONE) -> Step | None:
    return next_step(models, room, NOW_MS, TURN_MS)


def test_what_nobody_wants_is_left_alone() -> None:
    assert step(there("a", used_ms=1), Model("b", State.ABSENT)) is None


def test_with_room_it_is_loaded() -> None:
    assert step(wanted("a")) == Step(Do.LOAD, "a")
    assert step(there("a"), wanted("b"), room=TWO) == Step(Do.LOAD, "b")


def test_what_is_kept_is_loaded_unasked_and_first() -> None:
    assert step(wanted("a", 0), Model("k", State.ABSENT, keep=True), room=TWO) == Step(Do.LOAD, "k")


def test_the_least_recently_used_goes() -> None:
    assert step(there("a", 20), there("b", 10), wanted("c"), room=TWO) == Step(Do.UNLOAD, "b")


def test_one_in_use_stays_and_the_next_one_goes() -> None:
    assert step(there("a", 20), there("b", 10, in_use=1), wanted("c"), room=TWO) == Step(Do.UNLOAD, "a")


def test_one_that_is_kept_stays() -> None:
    assert step(there("a", 20), there("b", 10, keep=True), wanted("c"), room=TWO) == Step(Do.UNLOAD, "a")


def test_nobody_goes_in_vain() -> None:
    models = (there("a", 10, memory_mb=4), there("b", 20, memory_mb=6, in_use=1), wanted("c", memory_mb=8))
    assert step(*models, room=Room(memory_mb=10)) is None


def test_as_many_go_as_must() -> None:
    room = Room(memory_mb=10)
    small, large = there("a", 10, memory_mb=4), there("b", 20, memory_mb=6)
    assert step(small, large, wanted("c", memory_mb=4), room=room) == Step(Do.UNLOAD, "a")
    assert step(small, large, wanted("c", memory_mb=9), room=room) == Step(Do.UNLOAD, "a")
    assert step(large, wanted("c", memory_mb=9), room=room) == Step(Do.UNLOAD, "b")


def test_who_has_waited_longest_is_not_passed_by_a_smaller_one() -> None:
    models = (there("a", memory_mb=6, in_use=1), wanted("big", 99_000, memory_mb=8), wanted("small", memory_mb=2))
    assert step(*models, room=Room(memory_mb=10)) is None


def test_a_model_that_is_never_idle_makes_way_after_a_turn() -> None:
    busy = there("a", in_use=3)
    assert step(busy, wanted("b", NOW_MS - TURN_MS + 1)) is None
    assert step(busy, wanted("b", NOW_MS - TURN_MS)) == Step(Do.DRAIN, "a")


def test_one_that_drains_goes_before_another_begins_to() -> None:
    draining = Model("a", State.DRAINING, used_ms=NOW_MS, in_use=1)
    models = (draining, there("b", 10, in_use=1), wanted("c", 0))
    assert step(*models, room=TWO) is None
    assert step(Model("a", State.DRAINING, used_ms=NOW_MS), *models[1:], room=TWO) == Step(Do.UNLOAD, "a")


def test_it_is_used_again_when_nobody_needs_its_room_any_more() -> None:
    assert step(Model("a", State.DRAINING, in_use=1)) == Step(Do.RESUME, "a")


def test_what_an_operator_wants_gone_goes_when_it_is_idle() -> None:
    assert step(Model("a", State.LOADED, to_go=True)) == Step(Do.UNLOAD, "a")
    assert step(Model("a", State.LOADED, in_use=1, to_go=True)) is None
    assert step(Model("a", State.LOADED, keep=True, to_go=True)) is None


def test_a_failed_one_is_tried_again_in_its_time() -> None:
    failed = Model("a", State.FAILED, waiting=1, retry_ms=NOW_MS + 1)
    assert step(failed) is None
    assert step(Model("a", State.FAILED, waiting=1, retry_ms=NOW_MS)) == Step(Do.LOAD, "a")
    assert step(failed, wanted("b")) == Step(Do.LOAD, "b")


@pytest.mark.parametrize("state", [State.LOADING, State.UNLOADING])
def test_what_is_on_its_way_is_waited_for(state: State) -> None:
    assert step(Model("a", state), there("b"), wanted("c"), room=TWO) is None
