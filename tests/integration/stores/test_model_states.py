"""Who uses which model and who loads it, in a real Redis: the promises that hold between any number of processes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

import pytest

from extproc.clock import Clock
from extproc.errors import DependencyError
from extproc.model_mesh import MeshModel, Standing, State
from extproc.stores.model_states import ModelStates
from extproc.stores.model_uses import SharedModelUses
from tests.helpers.redis import RedisServer

ME, OTHER = "one-loader", "another"
_fresh = itertools.count()


@pytest.fixture
async def states(shared_redis: RedisServer) -> AsyncIterator[ModelStates]:
    found = ModelStates(shared_redis.url, 5.0)
    yield found
    await found.close()


@pytest.fixture
def model() -> MeshModel:
    """In a mesh that no other test knows."""
    return MeshModel(f"mesh-{next(_fresh)}", "m", "pool", 5.0, 2)


async def leads(states: ModelStates, model: MeshModel, name: str = ME) -> bool:
    return (await states.survey(model.mesh, [model.model], name)).leads


async def put(states: ModelStates, model: MeshModel, state: State, **more: int) -> bool:
    return await states.mark(ME, model.mesh, model.model, state=str(state), **more)


async def standing(states: ModelStates, model: MeshModel, ticket: str = "t") -> Standing:
    return (await states.enter(model, ticket)).standing


async def test_of_two_who_would_load_one_does(states: ModelStates, model: MeshModel) -> None:
    assert await leads(states, model)
    assert not await leads(states, model, OTHER)
    assert await leads(states, model)
    assert not (await states.survey(model.mesh, [model.model])).leads  # an onlooker


async def test_who_is_not_the_loader_any_more_has_nothing_to_say(states: ModelStates, model: MeshModel) -> None:
    assert await leads(states, model, OTHER)
    assert not await put(states, model, State.LOADED)
    assert await standing(states, model) is Standing.WAITING


async def test_in_use_it_is_not_given_up_and_given_up_it_is_not_used(states: ModelStates, model: MeshModel) -> None:
    assert await leads(states, model)
    assert await put(states, model, State.LOADED)
    assert await standing(states, model) is Standing.READY
    unloading = {"state": str(State.UNLOADING)}
    assert not await states.mark(ME, model.mesh, model.model, only_idle=True, **unloading)
    await states.leave(model, "t")
    assert await states.mark(ME, model.mesh, model.model, only_idle=True, **unloading)
    assert await standing(states, model) is Standing.WAITING


@pytest.mark.parametrize("state", [state for state in State if state is not State.LOADED])
async def test_only_what_is_loaded_is_used(states: ModelStates, model: MeshModel, state: State) -> None:
    assert await leads(states, model)
    assert await put(states, model, state)
    assert await standing(states, model) is Standing.WAITING


async def test_so_many_wait_and_no_more(states: ModelStates, model: MeshModel) -> None:
    found = [await standing(states, model, ticket) for ticket in ("a", "b", "c", "a")]
    assert found == [Standing.WAITING, Standing.WAITING, Standing.FULL, Standing.WAITING]
    await states.leave(model, "b")
    assert await standing(states, model, "c") is Standing.WAITING


async def test_a_failed_load_says_when_it_is_tried_again(states: ModelStates, model: MeshModel) -> None:
    assert await leads(states, model)
    now_ms = (await states.survey(model.mesh, [model.model])).now_ms
    assert await put(states, model, State.FAILED, until=now_ms + 60_000)
    entry = await states.enter(model, "t")
    assert entry.standing is Standing.FAILED
    assert 0 < entry.ms <= 60_000
    assert await put(states, model, State.FAILED, until=now_ms)
    assert await standing(states, model) is Standing.WAITING


async def test_what_is_left_of_a_load_is_known_from_the_last_one(states: ModelStates, model: MeshModel) -> None:
    assert (await states.enter(model, "t")).ms == -1
    assert await leads(states, model)
    assert await put(states, model, State.LOADING, load_ms=60_000)
    assert 0 < (await states.enter(model, "t")).ms <= 60_000


async def test_a_worker_without_redis_goes_on_and_is_counted_when_it_is_back(
    own_redis: RedisServer, model: MeshModel
) -> None:
    lost = list[bool]()

    async def arrives(_: MeshModel) -> bool:
        return True

    states = ModelStates(own_redis.url, 0.25)
    uses = SharedModelUses(states, Clock(), arrives, lost.append)
    own_redis.stop()
    with pytest.raises(DependencyError):
        await uses.enter(model, "t")
    assert lost == [False, True]  # what was lost before it was made is over
    own_redis.start()
    onlooker = ModelStates(own_redis.url, 5.0)
    while not (await onlooker.survey(model.mesh, [model.model])).models[model.model].in_use:
        await uses.beat()
        await asyncio.sleep(0.05)
    assert lost == [False, True, False]
    await uses.close()
    await onlooker.close()


async def test_who_leaves_during_a_sign_of_life_is_gone(shared_redis: RedisServer, model: MeshModel) -> None:
    class Overtaken(ModelStates):
        async def beat(self, mesh: str, model: str, tickets: Sequence[str]) -> None:
            await uses.leave("t")
            await super().beat(mesh, model, tickets)

    async def arrives(_: MeshModel) -> bool:
        return True

    states = Overtaken(shared_redis.url, 5.0)
    uses = SharedModelUses(states, Clock(), arrives, lambda _: None)
    assert await leads(states, model)
    assert await put(states, model, State.LOADED)
    assert (await uses.enter(model, "t")).standing is Standing.READY
    await uses.beat()
    assert (await states.survey(model.mesh, [model.model])).models[model.model].in_use == 0
    await uses.close()


async def test_who_only_looks_is_told_the_same_and_leaves_nothing(states: ModelStates, model: MeshModel) -> None:
    async def looks() -> Standing:
        return (await states.look(model)).standing

    assert await looks() is Standing.WAITING
    assert await leads(states, model)
    now_ms = (await states.survey(model.mesh, [model.model])).now_ms
    assert await put(states, model, State.FAILED, until=now_ms + 60_000)
    assert await looks() is Standing.FAILED
    assert await put(states, model, State.LOADED)
    assert await looks() is Standing.READY
    assert await put(states, model, State.ABSENT)
    row = (await states.survey(model.mesh, [model.model])).models[model.model]
    assert (row.in_use, row.waiting, row.used_ms, row.wanted_ms) == (0, 0, 0, 0)
    for ticket in ("a", "b"):
        assert await standing(states, model, ticket) is Standing.WAITING
    assert await looks() is Standing.FULL


async def test_nothing_is_sent_to_a_model_before_envoy_sees_it(states: ModelStates, model: MeshModel) -> None:
    asked, sees = list[str](), asyncio.Event()

    async def arrives(asked_for: MeshModel) -> bool:
        asked.append(asked_for.pool)
        return sees.is_set()

    uses = SharedModelUses(states, Clock(), arrives, lambda _: None)
    assert await leads(states, model)
    assert await put(states, model, State.LOADED)
    assert (await uses.enter(model, "a")).standing is Standing.WAITING
    sees.set()
    assert (await uses.turn(model, "a", 5.0)).standing is Standing.READY
    seen = len(asked)
    assert (await uses.enter(model, "b")).standing is Standing.READY
    assert len(asked) == seen  # it was seen, and was not loaded anew since
    assert await put(states, model, State.LOADED)
    assert (await uses.enter(model, "c")).standing is Standing.READY
    assert len(asked) == seen + 1
    await asyncio.gather(*(uses.leave(ticket) for ticket in "abc"))
    assert uses.idle
    assert (await states.survey(model.mesh, [model.model])).models[model.model].in_use == 0
