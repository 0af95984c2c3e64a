"""A small model that is tried first, a large one, and who stands in for that."""

import contextlib
from collections.abc import Iterator

import pytest

from extproc.config.model import GrpcServer
from tests.helpers.cascades import MODELS, POLICIES, World, pools, says
from tests.helpers.scripted_upstream import ScriptedUpstream
from tests.helpers.services import Upstreams, Worlds, served


@pytest.fixture(scope="module")
def _worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds[World]]:
    @contextlib.contextmanager
    def opened(server: GrpcServer) -> Iterator[World]:
        with contextlib.ExitStack() as running:
            servers = [running.enter_context(contextlib.closing(ScriptedUpstream())) for _ in range(3)]
            more = {"models": MODELS, "pools": pools(*(server.port for server in servers))}
            directory = tmp_path_factory.mktemp("cascade")
            gateway = running.enter_context(served(directory, Upstreams(), policies=POLICIES, server=server, more=more))
            yield World(gateway, *servers)

    with contextlib.closing(Worlds(opened)) as worlds:
        yield worlds


@pytest.fixture
def world(_worlds: Worlds[World], request: pytest.FixtureRequest) -> World:
    world = _worlds.of(request)
    world.small.script = says("small ", "talk ", "goes ", "on ", "here")
    world.large.script = says("a ", "large ", "word", logprob=None, usage=(9, 5))
    world.spare.script = says("spare ", "word", logprob=None, usage=(9, 2))
    for server in (world.small, world.large, world.spare):
        server.seen.clear()
    return world
