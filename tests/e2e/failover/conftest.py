"""A pool that fails as a test tells it to, and the pools that stand in for it."""

import contextlib
from collections.abc import Iterator

import pytest

from extproc.config.model import GrpcServer
from tests.helpers.failover import MODELS, World, generate, pools
from tests.helpers.scripted_upstream import ScriptedUpstream, chat
from tests.helpers.services import Upstreams, Worlds, served


@pytest.fixture(scope="module")
def _worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds[World]]:
    @contextlib.contextmanager
    def opened(server: GrpcServer) -> Iterator[World]:
        with contextlib.ExitStack() as running:
            servers = [running.enter_context(contextlib.closing(ScriptedUpstream())) for _ in range(4)]
            more = {"models": MODELS, "pools": pools(*(server.port for server in servers))}
            directory = tmp_path_factory.mktemp("failover")
            gateway = running.enter_context(served(directory, Upstreams(), server=server, more=more))
            yield World(gateway, *servers)

    with contextlib.closing(Worlds(opened)) as worlds:
        yield worlds


@pytest.fixture
def world(_worlds: Worlds[World], request: pytest.FixtureRequest) -> World:
    world = _worlds.of(request)
    for server in (world.main, world.twin, world.spare, world.small):
        server.script = generate if server is world.small else chat
        server.seen.clear()
    return world
