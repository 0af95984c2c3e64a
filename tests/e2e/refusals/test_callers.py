"""Callers that nobody knows, or who may not use the model they ask for."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import openai
import pytest

from extproc.stores.keys import KeyHasher, KeyStore
from tests.helpers.accounting import Books
from tests.helpers.chats import CHAT, encoded, port
from tests.helpers.errors import assert_openai_error
from tests.helpers.processes import wait_until
from tests.helpers.raw_http import exchange, request

if TYPE_CHECKING:
    from extproc.stack.stack import Stack


def revoked_key(stack: "Stack") -> str:
    """A key that worked and was then taken away."""
    key = stack.create_key("to be revoked")
    assert not is_refused(stack, key)

    async def revoke() -> None:
        store = KeyStore(stack.config.redis.url.get_secret_value(), KeyHasher(stack.config.keys.secret), 5.0)
        for record in await store.list():
            if record.name == "to be revoked":
                await store.revoke(record.id)
        await store.close()

    asyncio.run(revoke())
    return key


CREDENTIALS = {
    "none": "",
    "wrong": "authorization: Bearer sk-xp-wrong",
    "empty": "authorization: Bearer",
    "another scheme": "authorization: Basic dXNlcjpwYXNz",
    "no scheme": "authorization: {key}",
    "a bare word": "authorization: Bearer",
    "two keys in one": "authorization: Bearer {key} {key}",
    "two headers": "authorization: Bearer {key}\nauthorization: Bearer sk-xp-wrong",
    "the same twice": "authorization: Bearer {key}\nauthorization: Bearer {key}",
    "wrong in x-api-key": "x-api-key: sk-xp-wrong",
    "the right one behind a wrong one": "authorization: Bearer sk-xp-wrong\nx-api-key: {key}",
    "bytes that are no text": "authorization: Bearer \xff\xfe\xe9",
    "in a cookie": "cookie: authorization=Bearer {key}",
    "with an underscore": "x_api_key: {key}",
    "a long one": "authorization: Bearer " + "k" * 50_000,
}


@pytest.mark.parametrize("case", CREDENTIALS)
@pytest.mark.usefixtures("untouched")
def test_a_caller_nobody_knows_is_refused(stack: "Stack", stack_key: str, books: Books, case: str) -> None:
    with books.accounted() as entries:
        answer = exchange(port(stack), request(CHAT, encoded(), headers=CREDENTIALS[case].format(key=stack_key)))
    assert answer.status == 401
    assert_openai_error(answer.headers, answer.json(), 401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert stack_key not in answer.body.decode()
    assert entries.outcomes() == [("REJECTED", "unauthenticated", 401)]
    assert entries.only["principal"] == "anonymous"


@pytest.mark.usefixtures("untouched")
def test_a_revoked_key_stops_working_at_once(
    stack: "Stack", books: Books, client: Callable[[str], openai.OpenAI]
) -> None:
    key = revoked_key(stack)
    assert wait_until(lambda: is_refused(stack, key))
    with books.accounted() as entries, pytest.raises(openai.AuthenticationError) as caught:
        client(key).models.list()
    assert caught.value.code == "invalid_api_key"
    assert entries.outcomes() == [("REJECTED", "unauthenticated", 401)]


def is_refused(stack: "Stack", key: str) -> bool:
    return exchange(port(stack), request("/v1/models", method="GET", key=key)).status == 401


def test_a_key_may_come_in_x_api_key(stack: "Stack", stack_key: str, books: Books) -> None:
    with books.accounted() as entries:
        answer = exchange(port(stack), request("/v1/models", method="GET", headers=f"x-api-key: {stack_key}"))
    assert answer.status == 200
    assert entries.outcomes() == [("COMPLETED", "", 200)]


@pytest.mark.usefixtures("untouched")
def test_a_key_larger_than_any_header_is_refused_before_anyone_reads_it(stack: "Stack", books: Books) -> None:
    with books.accounted(0):
        answer = exchange(port(stack), request(CHAT, encoded(), key="k" * 100_000))
    assert_openai_error(answer.headers, answer.json(), 431, "request_headers_too_large")
