"""Model servers that are down, wrong, slow or dying: clients get a proper error, or a stream that is visibly broken."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.helpers.failing import World
from tests.helpers.scripted_upstream import ScriptedUpstream, chat
from tests.helpers.services import Upstreams, served


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as running:
        upstream, a, b = (running.enter_context(contextlib.closing(ScriptedUpstream())) for _ in range(3))
        ports = Upstreams(openai=upstream.port, triton=upstream.port, kserve=upstream.port, pair=(a.port, b.port))
        gateway = running.enter_context(served(tmp_path_factory.mktemp("upstreams"), ports))
        yield World(gateway, upstream, (a, b))


@pytest.fixture
def world(_world: World) -> World:
    for upstream in (_world.upstream, *_world.pair):
        upstream.script = chat
        upstream.seen.clear()
    return _world
