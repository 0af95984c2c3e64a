"""Fixtures for every kind of test: real servers, started once per process that needs them."""

import pathlib
from collections.abc import Iterator

import pytest

from tests.helpers.redis import RedisServer


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for tests that leave it running; keys of other tests may be in it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture
def own_redis(tmp_path: pathlib.Path) -> Iterator[RedisServer]:
    """An empty Redis for one test, which may break it."""
    server = RedisServer(tmp_path)
    yield server
    server.close()
