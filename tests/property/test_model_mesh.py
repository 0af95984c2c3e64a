"""Models that share a server: any requests in any order, carried out step by step."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extproc.model_mesh import OCCUPYING, State
from extproc.routing.model_plan import Do, Model, Room, Step, next_step

TURN_MS = 10
NAMES = ("a", "b", "c", "d", "e")
sizes = st.integers(1, 10)


class Server:
    """Carries out what is planned, and checks every step. One `tick` is a millisecond."""

    def __init__(self, models: Mapping[str, Model], room: Room) -> None:
        self.models, self.room, self.now_ms = dict(models), room, 0

    def change(self, name: str, **facts: object) -> None:
        self.models[name] = replace(self.models[name], **facts)

    def request(self, name: str) -> None:
        model = self.models[name]
        if model.state is State.LOADED:
            self.change(name, in_use=model.in_use + 1, used_ms=self.now_ms)
        else:
            self.change(name, waiting=model.waiting + 1, wanted_ms=model.wanted_ms if model.waiting else self.now_ms)

    def end(self, name: str) -> None:
        if self.models[name].in_use:
            self.change(name, in_use=self.models[name].in_use - 1, used_ms=self.now_ms)

    def tick(self) -> Step | None:
        self.now_ms += 1
        step = next_step(list(self.models.values()), self.room, self.now_ms, TURN_MS)
        if step is not None:
            self.carry_out(step)
        return step

    def carry_out(self, step: Step) -> None:
        model = self.models[step.model]
        if step.do is Do.LOAD:
            assert model.state not in OCCUPYING
            self.change(step.model, state=State.LOADED, in_use=model.waiting, waiting=0, used_ms=self.now_ms)
            occupying = [one for one in self.models.values() if one.state in OCCUPYING]
            assert self.room.holds(occupying)
        elif step.do is Do.UNLOAD:
            assert model.state in (State.LOADED, State.DRAINING)
            assert not model.keep
            assert not model.in_use
            earlier = [
                one.name
                for one in self.models.values()
                if one.state is State.LOADED and not one.keep and not one.in_use and one.used_ms < model.used_ms
            ]
            assert model.state is State.DRAINING or not earlier
            self.change(step.model, state=State.ABSENT)
        elif step.do is Do.DRAIN:
            assert model.state is State.LOADED
            assert not model.keep
            self.change(step.model, state=State.DRAINING)
        else:
            self.change(step.model, state=State.LOADED, in_use=model.in_use + model.waiting, waiting=0)


@st.composite
def servers(draw: st.DrawFn) -> Server:
    """In which every model fits beside all that are kept."""
    kept = draw(st.sets(st.sampled_from(NAMES), max_size=2))
    models = {name: Model(name, State.ABSENT, draw(sizes), name in kept) for name in draw(st.permutations(NAMES))}
    kept_mb = sum(models[name].memory_mb for name in kept)
    largest_mb = max(model.memory_mb for name, model in models.items() if name not in kept)
    memory_mb = draw(st.none() | st.integers(kept_mb + largest_mb, 60))
    count = (
        draw(st.integers(len(kept) + 1, 6)) if memory_mb is None else draw(st.none() | st.integers(len(kept) + 1, 6))
    )
    return Server(models, Room(count, memory_mb))


happenings = st.lists(
    st.tuples(st.sampled_from(("request", "end", "tick", "tick")), st.sampled_from(NAMES)), max_size=120
)


@given(servers(), happenings)
def test_no_step_breaks_a_promise_and_everybody_is_served(server: Server, happened: list[tuple[str, str]]) -> None:
    for what, name in happened:
        if what == "tick":
            server.tick()
        else:
            getattr(server, what)(name)
    # From here on nobody new comes, and every request comes to its end: then nobody waits for ever.
    for _ in range(40 * len(NAMES)):
        server.tick()
        for name in NAMES:
            server.end(name)
    assert not any(model.waiting for model in server.models.values())
    assert all(model.state is State.LOADED for model in server.models.values() if model.keep)


@given(servers(), st.sampled_from(NAMES))
def test_a_model_that_is_always_in_use_holds_its_place_for_no_more_than_a_turn(server: Server, busy: str) -> None:
    server.request(busy)
    for _ in range(3):
        server.tick()
    others = [name for name in NAMES if name != busy]
    for name in others:
        server.request(name)
    served: set[str] = set()
    for _ in range(8 * len(NAMES) * TURN_MS):
        server.request(busy)  # without end: one comes before the last one goes
        server.tick()
        served |= {name for name in others if server.models[name].state is State.LOADED}
        for name in NAMES:
            server.end(name)
    assert served == set(others)
