"""Fixtures for every kind of test: real servers, started once per process that needs them."""

import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.helpers.redis import RedisServer

if TYPE_CHECKING:
    from extproc.stack.stack import Stack


# Nothing is said of the code by an example that was slow once, on a machine with others on it.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the whole stack can be chosen, or left out, by name."""
    for item in items:
        if "_session_stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.stack)


@pytest.fixture(scope="session")
def _session_stack(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Stack]":
    from tests.helpers.stack import running_stack  # imports nearly everything, which unit tests needn't wait for

    with running_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture
def stack(_session_stack: "Stack") -> "Iterator[Stack]":
    """The running local stack. A test may stop, kill or pause its components: they are started again after it."""
    from tests.helpers.stack import mend

    yield _session_stack
    mend(_session_stack)


@pytest.fixture(scope="session")
def stack_key(_session_stack: "Stack") -> str:
    """An API key for the stack that may use every model."""
    return _session_stack.create_key("tests")


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
