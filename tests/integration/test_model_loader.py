"""The loaders of two replicas before two real Tritons and a real Redis: what is kept, who makes way, who takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack

import aiohttp
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from extproc.config.address import TcpAddress
from extproc.config.model_meshes import MeshedModel, ModelMesh
from extproc.model_loader import MeshLoader
from extproc.model_mesh import MeshModel, Standing, State
from extproc.routing.model_meshes import Mesh
from extproc.routing.model_repository import BUSY, LOADING, UNLOADING
from extproc.stores.model_states import ModelRow, ModelStates
from extproc.telemetry.model_mesh_metrics import ModelMeshMetrics
from tests.helpers.meshed import EmptyTriton
from tests.helpers.redis import RedisServer

MODELS = {"kept": MeshedModel(memory_mb=5, keep=True), "one": MeshedModel(memory_mb=4), "two": MeshedModel(memory_mb=4)}
SETTINGS = ModelMesh(memory_mb=10, turn_s=0.5, load_timeout_s=60)
LONG_S = 60.0
IMPATIENT = ModelMesh(max_models=1, load_timeout_s=1, retry_load_s=0.1)
PLAIN = {"one": MeshedModel(), "two": MeshedModel()}
SLOW_S = "4"


class World:
    """One mesh, its loaders as several replicas have them, and whoever uses its models."""

    def __init__(self, tritons: tuple[EmptyTriton, EmptyTriton], url: str, session: aiohttp.ClientSession) -> None:
        self.tritons = tritons
        servers = tuple(TcpAddress("127.0.0.1", triton.ports.http) for triton in tritons)
        self.mesh, self._url, self._session = Mesh("gpu", SETTINGS, servers, MODELS), url, session
        self.states = ModelStates(url, 5.0)
        self._used: set[tuple[str, str]] = set()
        self._tasks = [asyncio.create_task(self._beat())]

    def start_loader(self, name: str = "") -> asyncio.Task[None]:
        metrics = ModelMeshMetrics(CollectorRegistry())
        name = name or f"loader-{len(self._tasks)}"
        loader = MeshLoader(name, self.mesh, ModelStates(self._url, 5.0), self._session, metrics)
        self._tasks.append(asyncio.create_task(loader.run()))
        return self._tasks[-1]

    async def _beat(self) -> None:
        while True:
            for model, ticket in set(self._used):
                await self.states.beat("gpu", model, [ticket])
            await asyncio.sleep(1.0)

    async def row(self, model: str) -> ModelRow:
        return (await self.states.survey("gpu", [model])).models[model]

    async def enter(self, model: str, ticket: str) -> Standing:
        return (await self.states.enter(MeshModel("gpu", model, "", LONG_S, 10), ticket)).standing

    async def leave(self, model: str, ticket: str) -> None:
        self._used.discard((model, ticket))
        await self.states.leave(MeshModel("gpu", model, "", LONG_S, 10), ticket)

    async def uses(self, model: str, ticket: str) -> None:
        async def is_ready() -> bool:
            return await self.enter(model, ticket) is Standing.READY

        await until(is_ready)
        self._used.add((model, ticket))

    async def takes_room(self, model: str, state: str) -> None:
        """Until the first server says this of it."""

        async def says() -> bool:
            return (await asyncio.to_thread(self.tritons[0].states)).get(model) == state

        await until(says)

    async def is_served_alone(self, model: str, ticket: str) -> None:
        """Until it is ready; at no time before does it take room in the first server beside another one."""

        async def is_ready() -> bool:
            states = await asyncio.to_thread(self.tritons[0].states)
            assert len([name for name, state in states.items() if state in BUSY]) <= 1, states
            return await self.enter(model, ticket) is Standing.READY

        await until(is_ready)
        self._used.add((model, ticket))

    def loaded(self) -> list[set[str]]:
        return [triton.loaded() for triton in self.tritons]

    async def has(self, *models: str) -> None:
        """Until both servers have these."""

        async def have() -> bool:
            return await asyncio.to_thread(self.loaded) == [set(models)] * 2

        await until(have)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.states.close()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LONG_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def tritons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmptyTriton, EmptyTriton]]:
    directory = tmp_path_factory.mktemp("loader")
    with ExitStack() as undo:
        both = [EmptyTriton(directory / name, *MODELS) for name in ("a", "b")]
        for triton in both:
            undo.callback(triton.close)
        yield both[0], both[1]


@pytest.fixture
async def world(own_redis: RedisServer, tritons: tuple[EmptyTriton, EmptyTriton]) -> AsyncIterator[World]:
    for triton in tritons:
        triton.empty()
        for model in MODELS:
            triton.loading(model, "0")
    async with aiohttp.ClientSession() as session:
        found = World(tritons, own_redis.url, session)
        yield found
        await found.close()


async def test_a_busy_model_makes_way_after_a_turn_and_one_that_is_kept_never_does(world: World) -> None:
    world.start_loader()
    world.start_loader()
    await world.has("kept")
    await world.uses("one", "a")
    await world.has("kept", "one")
    assert await world.enter("two", "b") is Standing.WAITING

    async def drains() -> bool:
        return (await world.row("one")).state is State.DRAINING

    await until(drains)
    assert world.loaded() == [{"kept", "one"}] * 2  # somebody uses it still
    assert await world.enter("one", "late") is Standing.WAITING
    await world.leave("one", "late")
    await world.leave("one", "a")
    await world.uses("two", "b")
    await world.has("kept", "two")


async def test_a_server_that_lost_a_model_gets_it_again_while_the_other_serves(world: World) -> None:
    world.start_loader()
    await world.uses("one", "a")
    await world.has("kept", "one")
    since_ms = (await world.row("one")).since_ms
    world.tritons[1].empty()
    await world.has("kept", "one")
    row = await world.row("one")
    assert (row.state, row.since_ms) == (State.LOADED, since_ms)  # nobody had to wait


async def test_when_a_loader_is_gone_another_one_takes_over(world: World) -> None:
    first = world.start_loader()
    await world.has("kept")
    world.start_loader()
    first.cancel()
    await world.uses("one", "a")
    await world.has("kept", "one")


async def test_a_load_that_took_too_long_takes_its_room_until_triton_is_done(world: World) -> None:
    world.mesh = replace(world.mesh, settings=IMPATIENT, models=PLAIN)
    for triton in world.tritons:
        triton.loading("one", SLOW_S)
    world.start_loader()
    assert await world.enter("one", "a") is Standing.WAITING
    await world.takes_room("one", LOADING)
    await world.leave("one", "a")
    await world.is_served_alone("two", "b")


async def test_what_a_replaced_loader_loads_takes_its_room(world: World) -> None:
    world.mesh = replace(world.mesh, settings=ModelMesh(max_models=1), models=PLAIN)
    for triton in world.tritons:
        triton.loading("one", SLOW_S)
    first = world.start_loader("reloaded")
    assert await world.enter("one", "a") is Standing.WAITING
    await world.takes_room("one", LOADING)
    await world.leave("one", "a")
    first.cancel()
    await asyncio.wait([first])
    world.start_loader("reloaded")
    await world.is_served_alone("two", "b")


async def test_an_unload_that_took_too_long_takes_its_room_until_triton_is_done(world: World) -> None:
    world.mesh = replace(world.mesh, settings=IMPATIENT, models=PLAIN)
    world.start_loader()
    await world.uses("one", "a")
    # Some 4 s, of which the mesh is not told.
    asked = {"text_input": "Hi", "stream": True, "max_tokens": 400, "ignore_eos": True}
    async with aiohttp.ClientSession() as session:
        url = f"{world.tritons[0].url}/v2/models/one/generate_stream"
        async with session.post(url, json=asked) as stream:
            await stream.content.readany()
            await world.leave("one", "a")
            assert await world.enter("two", "b") is Standing.WAITING
            await world.takes_room("one", UNLOADING)
            await world.is_served_alone("two", "b")


async def test_what_the_configuration_dropped_goes_first(world: World) -> None:
    world.mesh = replace(world.mesh, settings=ModelMesh(max_models=1), models={"one": MeshedModel()})
    first = world.start_loader("reloaded")
    await world.uses("one", "a")
    first.cancel()
    await asyncio.wait([first])
    world.mesh = replace(world.mesh, models={"two": MeshedModel()})
    world.start_loader("reloaded")
    assert await world.enter("two", "b") is Standing.WAITING
    await asyncio.sleep(2)
    assert world.loaded() == [{"one"}] * 2  # somebody uses it still
    await world.leave("one", "a")
    await world.is_served_alone("two", "b")


@pytest.mark.parametrize("moved", [False, True])
async def test_what_others_loaded_or_took_over_is_left_alone(world: World, moved: bool) -> None:
    taken = frozenset({"one"}) if moved else frozenset[str]()
    world.mesh = replace(world.mesh, settings=ModelMesh(max_models=1), models={"two": MeshedModel()}, untouched=taken)
    if moved:
        await world.states.begun("gpu", "one", 0)
    async with aiohttp.ClientSession() as session:
        for triton in world.tritons:
            async with session.post(f"{triton.url}/v2/repository/models/one/load", json={}) as answer:
                assert answer.status == 200
    world.start_loader()
    await world.uses("two", "b")
    assert world.loaded() == [{"one", "two"}] * 2
    assert "one" not in await world.states.all_begun("gpu")
