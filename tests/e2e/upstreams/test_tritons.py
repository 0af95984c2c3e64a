"""Real Tritons that fail, hang and die."""

import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import openai
import pytest

from extproc.stack.stack import TRITON_A, TRITON_B
from tests.helpers.accounting import books_of
from tests.helpers.failing import BUSY, OVER, prompt, read_texts
from tests.helpers.processes import wait_until
from tests.helpers.services import ServedGateway, Upstreams, served

if TYPE_CHECKING:
    from extproc.stack.stack import Stack


@pytest.fixture
def client(stack: "Stack", stack_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=stack.base_url, api_key=stack_key, max_retries=0, timeout=20) as client:
        yield client


def test_a_model_that_fails_before_its_first_token(stack: "Stack", client: openai.OpenAI) -> None:
    with books_of(stack).accounted(2) as entries:
        for streams in (True, False):
            with pytest.raises(openai.InternalServerError) as caught:
                client.chat.completions.create(
                    model="demo-llm", messages=prompt("[[demo:error-before]]"), stream=streams
                )
            assert (caught.value.status_code, caught.value.code) == (502, "upstream_error")
    assert entries.outcomes() == [(*OVER, 502)] * 2


def test_a_model_that_fails_in_mid_stream(stack: "Stack", client: openai.OpenAI) -> None:
    seen: list[str] = []
    with books_of(stack).accounted() as entries, pytest.raises(openai.APIError):
        read_texts(client, "demo-llm", "[[demo:error-after=3]]", seen.extend)
    assert "".join(seen)
    assert entries.outcomes() == [(*OVER, 200)]
    assert entries.only["completion_tokens"] == 3


@pytest.fixture
def impatient(stack: "Stack", tmp_path: pathlib.Path) -> Iterator[ServedGateway]:
    """Another gateway before the stack's Tritons, whose patience is a second."""
    a, b = stack.settings.ports.triton_a.http, stack.settings.ports.triton_b.http
    with served(tmp_path / "gateway", Upstreams(triton=a, tritons=(a, b))) as gateway:
        yield gateway


def test_a_model_whose_process_dies_in_mid_stream(stack: "Stack", impatient: ServedGateway) -> None:
    client = impatient.openai()
    with impatient.books.accounted() as entries, pytest.raises((httpx.RemoteProtocolError, openai.APIError)):
        list(client.chat.completions.create(model="triton", messages=prompt("[[demo:crash-after=3]]"), stream=True))
    assert entries.only["completion_tokens"] == 3
    with impatient.books.accounted() as entries, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="triton", messages=prompt(""))
    # Triton takes a second to notice and as long to say so, which is as long as anybody waits here.
    assert (caught.value.status_code, caught.value.code) in {(503, "overloaded"), (504, "upstream_error")}
    assert entries.only["termination"] == "UPSTREAM_ERROR"
    stack.process(TRITON_A).kill()  # which only a restart repairs; `stack` starts it again


def test_a_pool_goes_on_without_the_triton_whose_model_died(stack: "Stack", impatient: ServedGateway) -> None:
    client = impatient.openai()
    with pytest.raises((httpx.RemoteProtocolError, openai.APIError)):
        list(client.chat.completions.create(model="triton", messages=prompt("[[demo:crash-after=3]]"), stream=True))
    # It still says that it is ready, and takes a second to refuse what it is sent.
    answered = [status_of(client, "tritons") for _ in range(6)]
    stack.process(TRITON_A).kill()
    assert answered == [200] * 6


def status_of(client: openai.OpenAI, model: str) -> int:
    try:
        client.chat.completions.create(model=model, messages=prompt(""), max_tokens=2)
    except openai.APIStatusError as error:
        return error.status_code
    return 200


def test_a_triton_that_is_killed_in_mid_stream(stack: "Stack", impatient: ServedGateway) -> None:
    client = impatient.openai()
    with impatient.books.accounted() as entries, pytest.raises((httpx.RemoteProtocolError, openai.APIError)):
        read_texts(client, "triton", "[[demo:tokens=500]]", lambda _: stack.process(TRITON_A).kill())
    assert entries.only["termination"] == "CANCELLED"
    assert entries.only["completion_tokens"] >= 1
    with impatient.books.accounted(6) as entries:
        assert {status_of(client, "tritons") for _ in range(6)} == {200}
    with impatient.books.accounted() as entries:
        assert status_of(client, "triton") == 503
    assert entries.outcomes() == [(*BUSY, 503)]


def test_a_triton_that_hangs(stack: "Stack", impatient: ServedGateway) -> None:
    client = impatient.openai()
    stack.process(TRITON_A).pause()
    with impatient.books.accounted() as entries:
        assert status_of(client, "triton") == 504
    assert entries.outcomes() == [(*OVER, 504)]
    # Its health checks fail, too: then nobody waits for it any more, and the other one serves.
    assert wait_until(lambda: "/failed_active_hc" in "".join(impatient.clusters("tritons/c0")))
    assert {status_of(client, "tritons") for _ in range(4)} == {200}
    assert status_of(client, "triton") == 503
    stack.process(TRITON_A).resume()
    assert wait_until(lambda: status_of(client, "triton") == 200)


def test_all_tritons_down_and_back(stack: "Stack", client: openai.OpenAI) -> None:
    for name in (TRITON_A, TRITON_B):
        stack.process(name).kill()
    with books_of(stack).accounted(2) as entries:
        with pytest.raises(openai.InternalServerError) as chat_error:
            client.chat.completions.create(model="demo-llm", messages=prompt(""), stream=True)
        with pytest.raises(openai.InternalServerError) as embeddings_error:
            client.embeddings.create(model="minilm", input="nobody has asked for this yet")  # nor has the cache it
    for error in (chat_error.value, embeddings_error.value):
        assert (error.status_code, error.code) == (503, "overloaded")
        assert error.response.headers["retry-after"] == "1"
    assert entries.outcomes() == [(*BUSY, 503)] * 2
    for name in (TRITON_A, TRITON_B):
        stack.start(name)
    assert wait_until(lambda: status_of(client, "demo-llm") == 200)
