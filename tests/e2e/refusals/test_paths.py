"""Paths and methods that nobody serves, and other spellings of those that are."""

from typing import TYPE_CHECKING

import pytest

from tests.helpers.accounting import Books
from tests.helpers.chats import CHAT, encoded, port
from tests.helpers.errors import assert_kserve_error, assert_openai_error
from tests.helpers.raw_http import Connection, exchange, request

if TYPE_CHECKING:
    from extproc.stack.stack import Stack

PATHS: dict[str, tuple[str, str, int, str | None]] = {
    "nothing": ("GET", "/", 404, "unknown_url"),
    "an unknown path": ("POST", "/v1/nothing", 404, "unknown_url"),
    "a path that begins well": ("POST", "/v1/chat/completions/x", 404, "unknown_url"),
    "another version": ("POST", "/v9/chat/completions", 404, "unknown_url"),
    "upper case": ("POST", "/V1/Chat/Completions", 404, "unknown_url"),
    "parameters in the path": ("POST", "/v1/chat/completions;x=y", 404, "unknown_url"),
    "an encoded slash": ("POST", "/v1%2fchat/completions", 400, "invalid_request"),
    "an encoded backslash": ("POST", "/v1%5cchat/completions", 400, "invalid_request"),
    "a zero byte": ("POST", "/v1/chat%00/completions", 400, "invalid_request"),
    "the wrong method": ("GET", CHAT, 405, "method_not_allowed"),
    "an unusual method": ("PATCH", CHAT, 405, "method_not_allowed"),
    "a preflight": ("OPTIONS", CHAT, 405, "method_not_allowed"),
    "a write to the list": ("DELETE", "/v1/models/demo-llm", 405, "method_not_allowed"),
    "an unknown model": ("GET", "/v1/models/unknown", 404, "model_not_found"),
    "an unknown model, in two segments": ("GET", "/v1/models/org/unknown", 404, "model_not_found"),
}


@pytest.mark.parametrize("case", PATHS)
@pytest.mark.usefixtures("untouched")
def test_what_is_not_served_is_said(stack: "Stack", stack_key: str, books: Books, case: str) -> None:
    method, path, status, code = PATHS[case]
    body = encoded() if method == "POST" else None
    with books.accounted() as entries:
        answer = exchange(port(stack), request(path, body, method=method, key=stack_key))
    assert answer.status == status, answer.body
    assert_openai_error(answer.headers, answer.json(), status, code)
    assert (answer.headers.get("allow") is not None) == (status == 405)
    assert entries.only["termination"] == "REJECTED"


def test_a_refusal_by_envoy_has_an_id(stack: "Stack", stack_key: str, books: Books) -> None:
    with books.accounted() as entries:
        answer = exchange(port(stack), request("/v1%2fmodels", method="GET", key=stack_key))
    assert answer.headers["x-request-id"] == entries.only["id"]


TRITON_PATHS = ["/v2/models/demo_llm/generate", "/v1/../v2/models/demo_llm/generate", "/v1/%2e%2e/v2/health/ready"]


@pytest.mark.parametrize("path", TRITON_PATHS)
@pytest.mark.usefixtures("untouched")
def test_tritons_own_paths_are_not_reachable(stack: "Stack", stack_key: str, books: Books, path: str) -> None:
    with books.accounted():
        answer = exchange(port(stack), request(path, b'{"text_input":"x"}', key=stack_key))
    assert answer.status == 404
    assert_kserve_error(answer.headers, answer.json(), 404)


def test_head_is_answered_without_a_body(stack: "Stack", stack_key: str, books: Books) -> None:
    with books.accounted(), Connection(port(stack)) as connection:
        connection.send(request("/v1/models", method="HEAD", key=stack_key))
        head = connection.answer(head_only=True)
        assert (head.status, head.headers["allow"]) == (405, "GET")
        connection.send(b"nonsense\r\n\r\n")
        assert connection.answer().status == 400  # what follows is the next response, not a body


SERVED_PATHS = ["//v1/chat/completions", "/v1//chat/completions", "/v1/./chat/completions", "/v1/x/../chat/completions"]


@pytest.mark.parametrize("path", [*SERVED_PATHS, f"{CHAT}/", f"{CHAT}?model=other", f"{CHAT}?"])
def test_other_spellings_of_a_path_are_that_path(stack: "Stack", stack_key: str, books: Books, path: str) -> None:
    with books.accounted() as entries:
        answer = exchange(port(stack), request(path, encoded(), key=stack_key))
    assert answer.status == 200, answer.body
    assert answer.json()["model"] == "demo-llm"
    assert entries.outcomes() == [("COMPLETED", "", 200)]


def test_a_get_with_a_body_is_answered_all_the_same(stack: "Stack", stack_key: str, books: Books) -> None:
    with books.accounted():
        answer = exchange(port(stack), request("/v1/models", b'{"a":1}', method="GET", key=stack_key))
    assert (answer.status, answer.whole) == (200, True)
