"""Bodies that make no sense, in every API."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import openai
import pytest

from tests.helpers.accounting import Books
from tests.helpers.chats import CHAT, encoded, port
from tests.helpers.errors import assert_kserve_error, assert_openai_error
from tests.helpers.raw_http import exchange, request

if TYPE_CHECKING:
    from extproc.stack.stack import Stack

TENSOR = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}
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
