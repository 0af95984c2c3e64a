"""Bodies that are too large, and how those that are not may come."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import openai
import pytest

from tests.helpers.accounting import Books
from tests.helpers.chats import CHAT, encoded, port
from tests.helpers.errors import assert_openai_error
from tests.helpers.raw_http import Connection, chunked, exchange, request

if TYPE_CHECKING:
    from extproc.stack.stack import Stack

LIMIT_BYTES = 10 * 1024 * 1024


def test_a_body_over_the_limit_is_refused_by_its_length_alone(stack: "Stack", stack_key: str, books: Books) -> None:
    with books.accounted() as entries, Connection(port(stack)) as connection:
        connection.send(request(CHAT, b"", key=stack_key, headers=f"content-length: {LIMIT_BYTES + 1}"))
        answer = connection.answer()  # not a byte of the body was sent
    assert_openai_error(answer.headers, answer.json(), 413, "request_too_large")
    assert entries.outcomes() == [("REJECTED", "request_too_large", 413)]


@pytest.mark.usefixtures("untouched")
def test_a_body_without_a_length_is_refused_as_soon_as_it_is_too_large(
    stack: "Stack", stack_key: str, books: Books
) -> None:
    chunk = b"%x\r\n%b\r\n" % (1 << 18, b" " * (1 << 18))
    with books.accounted() as entries, Connection(port(stack)) as connection:
        connection.send(request(CHAT, b"", key=stack_key, headers="transfer-encoding: chunked"))
        for _ in range(LIMIT_BYTES // (1 << 18) + 1):
            connection.send_what_is_taken(chunk)
        answer = connection.answer()  # its end was never sent
    assert_openai_error(answer.headers, answer.json(), 413, "request_too_large")
    assert entries.outcomes() == [("REJECTED", "request_too_large", 413)]


def test_the_official_client_is_told_of_a_body_over_the_limit(
    stack: "Stack", stack_key: str, books: Books, client: Callable[[str], openai.OpenAI]
) -> None:
    with books.accounted(), pytest.raises(openai.APIStatusError) as caught:
        client(stack_key).chat.completions.create(
            model="demo-llm", messages=[{"role": "user", "content": "x" * LIMIT_BYTES}]
        )
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")


@pytest.mark.usefixtures("untouched")
def test_a_large_body_within_the_limit_is_read_whole(stack: "Stack", stack_key: str, books: Books) -> None:
    body = encoded(messages=[{"role": "user", "content": "word " * 1_000_000}])
    with books.accounted() as entries:
        answer = exchange(port(stack), request(CHAT, body, key=stack_key))
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert entries.only["prompt_tokens"] > 1_000_000


SENDERS: dict[str, Callable[[str], bytes]] = {
    "in one chunk": lambda key: request(CHAT, chunked(encoded()), key=key, headers="transfer-encoding: chunked"),
    "byte by byte": lambda key: request(
        CHAT, chunked(*(bytes([byte]) for byte in encoded())), key=key, headers="transfer-encoding: chunked"
    ),
    "with trailers": lambda key: request(
        CHAT, chunked(encoded(), trailers="x-a: b\nx-extproc-pool: demo"), key=key, headers="transfer-encoding: chunked"
    ),
    "with another type": lambda key: request(CHAT, encoded(), key=key, headers="content-type: text/plain"),
}


@pytest.mark.parametrize("case", SENDERS)
def test_how_a_good_body_comes_makes_no_difference(stack: "Stack", stack_key: str, books: Books, case: str) -> None:
    with books.accounted() as entries:
        answer = exchange(port(stack), SENDERS[case](stack_key))
    assert answer.status == 200, answer.body
    assert answer.json()["usage"]["completion_tokens"] == 4
    assert entries.outcomes() == [("COMPLETED", "", 200)]


def test_nothing_of_all_this_was_logged_or_counted_twice(stack: "Stack", books: Books) -> None:
    """Last in the last file of this directory: what all the refusals left behind."""
    log = (stack.logs / "service.log").read_text()
    assert "Traceback" not in log
    assert "word word" not in log
    assert "Hello!" not in log
    books.assert_each_accounted_once()
