"""Model servers that are down, wrong, slow or dying: clients get a proper error, or a stream that is visibly broken."""

import contextlib
from collections.abc import Iterator

import pytest

from extproc.config.model import GrpcServer
from tests.helpers.failing import World
from tests.helpers.scripted_upstream import ScriptedUpstream, chat
from tests.helpers.services import Upstreams, Worlds, served


@pytest.fixture(scope="module")
def _worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds[World]]:
    @contextlib.contextmanager
    def opened(server: GrpcServer) -> Iterator[World]:
        with contextlib.ExitStack() as running:
            upstream, a, b = (running.enter_context(contextlib.closing(ScriptedUpstream())) for _ in range(3))
            ports = Upstreams(openai=upstream.port, triton=upstream.port, kserve=upstream.port, pair=(a.port, b.port))
            gateway = running.enter_context(served(tmp_path_factory.mktemp("upstreams"), ports, server=server))
            yield World(gateway, upstream, (a, b))

    with contextlib.closing(Worlds(opened)) as worlds:
        yield worlds


@pytest.fixture
def world(_worlds: Worlds[World], request: pytest.FixtureRequest) -> World:
    world = _worlds.of(request)
    for upstream in (world.upstream, *world.pair):
        upstream.script = chat
        upstream.seen.clear()
    return world
