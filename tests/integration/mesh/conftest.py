"""One Envoy with the generated configuration, the test processor and two upstreams, for all tests here."""

import pathlib
from collections.abc import Iterator

import httpx
import pytest

from tests.helpers.gateways import Gateway, started
from tests.helpers.upstreams import EchoServer


@pytest.fixture(scope="session")
def upstreams() -> Iterator[tuple[EchoServer, EchoServer]]:
    a, b = EchoServer("a"), EchoServer("b")
    yield a, b
    a.close()
    b.close()


@pytest.fixture(scope="session")
def gateway(upstreams: tuple[EchoServer, EchoServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Shared: a test that breaks something mends it."""
    yield from started(tmp_path_factory.mktemp("gateway"), upstreams)


@pytest.fixture
def own_gateway(upstreams: tuple[EchoServer, EchoServer], tmp_path: pathlib.Path) -> Iterator[Gateway]:
    yield from started(tmp_path, upstreams)


@pytest.fixture
def open_gateway(upstreams: tuple[EchoServer, EchoServer], tmp_path: pathlib.Path) -> Iterator[Gateway]:
    yield from started(tmp_path, upstreams, on_failure="open")


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20) as client:
        yield client
