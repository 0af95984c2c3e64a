"""Requests that can't be served: each is told why in its API's words, is on record once, and costs no model server."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import openai
import pytest

from tests.helpers.accounting import Books, books_of, upstream_requests

if TYPE_CHECKING:
    from extproc.stack.stack import Stack


@pytest.fixture
def books(stack: "Stack") -> Books:
    return books_of(stack)


@pytest.fixture
def untouched(stack: "Stack", books: Books) -> Iterator[None]:
    """Nothing that the test sends reaches a model server."""
    before = upstream_requests(stack)
    yield
    assert upstream_requests(stack) == before


@pytest.fixture
def client(stack: "Stack") -> Iterator[Callable[[str], openai.OpenAI]]:
    """The official client for a key."""
    with contextlib.ExitStack() as opened:
        yield lambda key: opened.enter_context(
            openai.OpenAI(base_url=stack.base_url, api_key=key, max_retries=0, timeout=20)
        )
