"""Requests that can't be served: each is told why in its API's words, is on record once, and costs no model server."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import openai
import pytest

from extproc.stores.keys import KeyHasher, KeyStore
from tests.helpers.accounting import Books, books_of, upstream_requests
from tests.helpers.errors import assert_kserve_error, assert_openai_error
from tests.helpers.processes import wait_until
from tests.helpers.raw_http import Connection, chunked, exchange, request

if TYPE_CHECKING:
    from extproc.stack.stack import Stack

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "Hello!"}
GOOD = {"model": "demo-llm", "messages": [USER], "max_tokens": 4}
TENSOR = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}
LIMIT_BYTES = 10 * 1024 * 1024


def encoded(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


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


def port(stack: "Stack") -> int:
    return stack.config.gateway.listen.port


# Who is calling.


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
    assert_openai_error(answer.headers, answer.json(), 431, "request_headers_too_large", seen=False)


# What is asked for.

BODIES: dict[str, tuple[bytes, int, str | None, str]] = {
    "empty": (b"", 400, None, "invalid_request"),
    "not JSON": (b"prompt=hello", 400, None, "invalid_request"),
    "cut off": (encoded()[:-5], 400, None, "invalid_request"),
    "two documents": (encoded() * 2, 400, None, "invalid_request"),
    "an array": (b"[]", 400, None, "invalid_request"),
    "a string": (b'"hello"', 400, None, "invalid_request"),
    "null": (b"null", 400, None, "invalid_request"),
    "not UTF-8": (encoded().replace(b"Hello", b"\xff\xfe"), 400, None, "invalid_request"),
    "a byte order mark": (b"\xef\xbb\xbf" + encoded(), 400, None, "invalid_request"),
    "half a surrogate": (encoded().replace(b"Hello", b"\\ud800"), 400, None, "invalid_request"),
    "not a number": (encoded().replace(b": 4", b": NaN"), 400, None, "invalid_request"),
    "a number beyond any": (encoded().replace(b": 4", b": 1e999"), 400, None, "invalid_request"),
    "nested deeply": (encoded(x=1)[:-2] + b"[" * 50_000 + b"]" * 50_000 + b"}", 400, None, "invalid_request"),
    "compressed": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", 400, None, "invalid_request"),
    "no model": (encoded(model=None), 400, "invalid_type", "invalid_request"),
    "a list for a model": (encoded(model=["demo-llm"]), 400, "invalid_type", "invalid_request"),
    "no messages": (encoded(messages=None), 400, "invalid_type", "invalid_request"),
    "empty messages": (encoded(messages=[]), 400, "empty_array", "invalid_request"),
    "text for messages": (encoded(messages="hello"), 400, "invalid_type", "invalid_request"),
    "null for a message": (encoded(messages=[None]), 400, "invalid_type", "invalid_request"),
    "an unknown role": (encoded(messages=[{"role": "god", "content": "x"}]), 400, "invalid_value", "invalid_request"),
    "a number for content": (
        encoded(messages=[{"role": "user", "content": 5}]),
        400,
        "invalid_type",
        "invalid_request",
    ),
    "text for stream": (encoded(stream="yes"), 400, "invalid_type", "invalid_request"),
    "a fraction for n": (encoded(n=1.5), 400, "invalid_type", "invalid_request"),
    "no tokens": (encoded(max_tokens=0), 400, "integer_below_min_value", "invalid_request"),
    "a model nobody has": (encoded(model="gpt-5"), 404, "model_not_found", "model_not_found"),
    "a model with a path": (encoded(model="../../v2/repository"), 404, "model_not_found", "model_not_found"),
    "a model with a line break": (encoded(model="a\r\nx-a: b"), 404, "model_not_found", "model_not_found"),
    "a model that doesn't chat": (encoded(model="minilm"), 400, None, "invalid_request"),
    "too many tokens": (encoded(max_tokens=5000), 400, None, "invalid_request"),
    "many times too many": (encoded(n=100), 400, None, "invalid_request"),
    "a second answer": (encoded(n=2), 400, "unsupported_parameter", "invalid_request"),
    "a picture": (
        encoded(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        400,
        "unsupported_value",
        "invalid_request",
    ),
    "a prompt beyond the window": (
        encoded(messages=[{"role": "user", "content": "word " * 9000}]),
        400,
        "context_length_exceeded",
        "context_length_exceeded",
    ),
    "a prompt that leaves no room": (
        encoded(messages=[{"role": "user", "content": "word " * 8000}], max_tokens=1000),
        400,
        "context_length_exceeded",
        "context_length_exceeded",
    ),
}


@pytest.mark.parametrize("case", BODIES)
@pytest.mark.usefixtures("untouched")
def test_a_body_that_makes_no_sense_is_refused(stack: "Stack", stack_key: str, books: Books, case: str) -> None:
    body, status, code, reason = BODIES[case]
    with books.accounted() as entries:
        answer = exchange(port(stack), request(CHAT, body, key=stack_key))
    assert answer.status == status, answer.body
    assert_openai_error(answer.headers, answer.json(), status, code)
    assert entries.outcomes() == [("REJECTED", reason, status)]
    assert entries.only["completion_tokens"] == 0


@pytest.mark.usefixtures("untouched")
def test_an_error_does_not_repeat_a_megabyte(stack: "Stack", stack_key: str, books: Books) -> None:
    with books.accounted(3):
        answers = [
            exchange(port(stack), request(CHAT, encoded(model="x" * 1_000_000), key=stack_key)),
            exchange(port(stack), request(CHAT, encoded(temperature="x" * 1_000_000), key=stack_key)),
            exchange(port(stack), request("/v1/" + "x" * 20_000, encoded(), key=stack_key)),
        ]
    assert [answer.status for answer in answers] == [404, 400, 404]
    assert max(len(answer.body) for answer in answers) < 1000


@pytest.mark.usefixtures("untouched")
def test_the_official_client_raises_what_its_users_expect(
    stack: "Stack", stack_key: str, books: Books, client: Callable[[str], openai.OpenAI]
) -> None:
    chat = client(stack_key).chat.completions
    with books.accounted(2):
        with pytest.raises(openai.NotFoundError) as missing:
            chat.create(model="gpt-5", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(openai.BadRequestError) as long:
            chat.create(model="demo-llm", messages=[{"role": "user", "content": "word " * 9000}], stream=True)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")
    assert "8192" in long.value.message


@pytest.mark.usefixtures("untouched")
def test_a_model_that_the_key_may_not_use(stack: "Stack", books: Books, client: Callable[[str], openai.OpenAI]) -> None:
    key = stack.create_key("narrow", models=("minilm",))
    with books.accounted() as entries, pytest.raises(openai.PermissionDeniedError) as caught:
        client(key).chat.completions.create(model="demo-llm", messages=[{"role": "user", "content": "x"}])
    assert caught.value.code == "model_not_allowed"
    assert entries.outcomes() == [("REJECTED", "model_not_allowed", 403)]
    assert [model.id for model in client(key).models.list()] == ["minilm"]


@pytest.mark.usefixtures("untouched")
def test_the_other_apis_refuse_in_their_own_words(stack: "Stack", stack_key: str, books: Books) -> None:
    with books.accounted(2) as entries:
        wrong = exchange(port(stack), request("/v1/embeddings", b'{"model":"demo-llm","input":"x"}', key=stack_key))
        empty = exchange(port(stack), request("/v1/completions", b'{"model":"demo-llm"}', key=stack_key))
    assert_openai_error(wrong.headers, wrong.json(), wrong.status, None)
    assert_openai_error(empty.headers, empty.json(), empty.status, "missing_required_parameter")
    assert {event["operation"] for event in entries.events} == {"embeddings", "completions"}


INFERENCES: dict[str, tuple[str, bytes, bool, int]] = {
    "no key": ("/v2/models/minilm/infer", json.dumps({"inputs": [TENSOR]}).encode(), False, 401),
    "not JSON": ("/v2/models/minilm/infer", b"x", True, 400),
    "no inputs": ("/v2/models/minilm/infer", b"{}", True, 400),
    "numbers for texts": (
        "/v2/models/minilm/infer",
        json.dumps({"inputs": [TENSOR | {"data": [1]}]}).encode(),
        True,
        400,
    ),
    "nested deeply": ("/v2/models/minilm/infer", b'{"inputs":' + b"[" * 50_000, True, 400),
    "an unknown model": ("/v2/models/nothing/infer", json.dumps({"inputs": [TENSOR]}).encode(), True, 404),
    "a model that doesn't infer": ("/v2/models/demo-llm/infer", json.dumps({"inputs": [TENSOR]}).encode(), True, 400),
    "Triton's own control": ("/v2/repository/models/minilm/unload", b"{}", True, 404),
}


@pytest.mark.parametrize("case", INFERENCES)
@pytest.mark.usefixtures("untouched")
def test_kserve_errors_have_kserves_shape(stack: "Stack", stack_key: str, books: Books, case: str) -> None:
    path, body, has_key, status = INFERENCES[case]
    with books.accounted() as entries:
        answer = exchange(port(stack), request(path, body, key=stack_key if has_key else None))
    assert answer.status == status, answer.body
    assert_kserve_error(answer.headers, answer.json(), status)
    assert entries.only["termination"] == "REJECTED"


# How much.


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


# Where to.

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
    """Last in this file: what the refusals above left behind."""
    log = (stack.logs / "service.log").read_text()
    assert "Traceback" not in log
    assert "word word" not in log
    assert "Hello!" not in log
    books.assert_each_accounted_once()
