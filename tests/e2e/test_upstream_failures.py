"""Model servers that are down, wrong, slow or dying: clients get a proper error, or a stream that is visibly broken."""

import contextlib
import json
import pathlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from extproc.stack.stack import TRITON_A, TRITON_B
from tests.helpers.accounting import Books, books_of
from tests.helpers.errors import assert_kserve_error, assert_openai_error
from tests.helpers.processes import wait_until
from tests.helpers.raw_http import Answer, exchange, request
from tests.helpers.scripted_upstream import (
    Call,
    Script,
    ScriptedUpstream,
    answers,
    chat,
    content,
    drip,
    hang,
    hang_up,
    stream,
    whole,
)
from tests.helpers.services import KEY, ServedGateway, Upstreams, served

if TYPE_CHECKING:
    from extproc.stack.stack import Stack

CHAT = "/v1/chat/completions"
TENSOR = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}
OVER = ("UPSTREAM_ERROR", "upstream_error")
BUSY = ("UPSTREAM_ERROR", "upstream_overloaded")


@dataclass
class World:
    gateway: ServedGateway
    upstream: ScriptedUpstream
    pair: tuple[ScriptedUpstream, ...]

    @property
    def books(self) -> Books:
        return self.gateway.books

    def ask(self, model: str = "openai", **more: Any) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], **more}
        return exchange(self.gateway.port, request(CHAT, json.dumps(body).encode(), key=KEY))

    def infer(self) -> Answer:
        body = json.dumps({"inputs": [TENSOR]}).encode()
        return exchange(self.gateway.port, request("/v2/models/kserve/infer", body, key=KEY))


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as running:
        upstream, a, b = (running.enter_context(contextlib.closing(ScriptedUpstream())) for _ in range(3))
        ports = Upstreams(openai=upstream.port, triton=upstream.port, kserve=upstream.port, pair=(a.port, b.port))
        gateway = running.enter_context(served(tmp_path_factory.mktemp("upstreams"), ports))
        yield World(gateway, upstream, (a, b))


@pytest.fixture
def world(_world: World) -> World:
    for upstream in (_world.upstream, *_world.pair):
        upstream.script = chat
        upstream.seen.clear()
    return _world


# What a model server may answer, and what the client makes of it: status, code, reason.

ERROR = b'{"error":{"message":"the GPU is on fire","type":"server_error","param":null,"code":null}}'
BAD_PARAMETER = b'{"error":{"message":"top_k is wrong","type":"x","param":"top_k","code":"nope"}}'
TEXT = "text/plain"
SSE = "text/event-stream"

OPENAI_ANSWERS: dict[str, tuple[Script, int, str | None, tuple[str, str]]] = {
    "500": (answers(500, ERROR), 502, "upstream_error", OVER),
    "500 in prose": (answers(500, b"Internal Server Error", TEXT), 502, "upstream_error", OVER),
    "500 without a body": (answers(500, b""), 502, "upstream_error", OVER),
    "500 as an event": (answers(500, b"data: " + ERROR + b"\n\n", SSE), 502, "upstream_error", OVER),
    "503": (answers(503, b"{}"), 503, "overloaded", BUSY),
    "429": (answers(429, b"{}"), 503, "overloaded", BUSY),
    "504": (answers(504, b"{}"), 504, "upstream_error", OVER),
    "400": (answers(400, BAD_PARAMETER), 400, "nope", ("UPSTREAM_ERROR", "upstream_refused")),
    "401": (answers(401, ERROR), 502, "upstream_error", OVER),
    "404": (answers(404, ERROR), 502, "upstream_error", OVER),
    "a redirect": (answers(307, b""), 502, "upstream_error", OVER),
    "no content": (lambda call: call.write(b"HTTP/1.1 204 No Content\r\n\r\n"), 502, "upstream_error", OVER),
    "an error after a 200": (answers(200, ERROR), 502, "upstream_error", OVER),
    "nothing": (answers(200, b""), 502, "upstream_error", OVER),
    "garbage": (answers(200, b"\x00\xff garbage"), 502, "upstream_error", OVER),
    "half an answer": (answers(200, whole()[:-20]), 502, "upstream_error", OVER),
    "another answer": (answers(200, b'{"object":"list","data":[]}'), 502, "upstream_error", OVER),
    "a list": (answers(200, b"[]"), 502, "upstream_error", OVER),
    "wrong types": (answers(200, b'{"choices":"none","usage":5}'), 502, "upstream_error", OVER),
    "nested deeply": (answers(200, b'{"choices":' + b"[" * 100_000), 502, "upstream_error", OVER),
    "a web page": (answers(200, b"<html>login</html>", "text/html"), 502, "upstream_error", OVER),
    "compressed": (answers(200, b"\x1f\x8b\x08\x00\x00\x00\x00\x00"), 502, "upstream_error", OVER),
}
STREAMS: dict[str, Script] = {
    "an error first": stream(b"data: " + ERROR + b"\n\n"),
    "nothing": stream(),
    "garbage": stream(b"data: {nonsense}\n\n"),
    "no events": stream(b"plain text, for ever and ever"),
    "bytes that are no text": stream(b"data: \xff\xfe\xfd\n\n"),
    "wrong types": stream(b'data: {"choices":[{"index":"x","delta":[]}]}\n\n'),
}


@pytest.mark.parametrize("case", OPENAI_ANSWERS)
@pytest.mark.parametrize("streams", [False, True])
def test_an_answer_that_is_none_becomes_an_error(world: World, case: str, streams: bool) -> None:
    world.upstream.script, status, code, outcome = OPENAI_ANSWERS[case]
    with world.books.accounted() as entries:
        answer = world.ask(stream=streams)
    assert answer.status == status, answer.body
    assert_openai_error(answer.headers, answer.json(), status, code)
    assert entries.outcomes() == [(*outcome, status)]
    assert entries.only["completion_tokens"] == 0


@pytest.mark.parametrize("case", STREAMS)
def test_a_stream_that_never_began_becomes_an_error(world: World, case: str) -> None:
    world.upstream.script = STREAMS[case]
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert answer.status == 502
    assert_openai_error(answer.headers, answer.json(), 502, "upstream_error")
    assert entries.outcomes() == [(*OVER, 502)]


TWO = (content("one "), content("two"))
ON = (content("three", "stop"), b"data: [DONE]\n\n")
BROKEN: dict[str, tuple[bytes, ...]] = {
    "an error": (b"data: " + ERROR + b"\n\n",),
    "an error, and on it goes": (b"data: " + ERROR + b"\n\n", *ON),
    "the end": (),
    "garbage": (b"data: {nonsense}\n\n",),
    "garbage, and on it goes": (b"data: {nonsense}\n\n", *ON),
    "half an event": (content("three")[:-10],),
    "an endless event": (b"data: " + b"x" * (9 << 20),),
}


class Breaking:
    """A stream of two pieces that breaks when the client has them."""

    def __init__(self, *rest: bytes, then: Script = lambda call: call.chunk(b"")) -> None:
        self.now = threading.Event()
        self._rest = rest
        self._then = then

    def __call__(self, call: Call) -> None:
        stream(*TWO, then=self._break)(call)

    def _break(self, call: Call) -> None:
        assert self.now.wait(10)
        for piece in self._rest:
            call.chunk(piece)
        self._then(call)


def receive(world: World, script: Breaking) -> bytes:
    """What a client gets of it. Raises RemoteProtocolError if it is broken off."""
    world.upstream.script = script
    body = {"model": "openai", "messages": [{"role": "user", "content": "x"}], "stream": True}
    received = b""
    with world.gateway.client() as client, client.stream("POST", CHAT, json=body) as response:
        assert response.status_code == 200
        for data in response.iter_raw():
            received += data
            if b"two" in received:
                script.now.set()
    return received


@pytest.mark.parametrize("case", BROKEN)
def test_a_stream_that_breaks_ends_in_an_error_event(world: World, case: str) -> None:
    with world.books.accounted() as entries:
        received = receive(world, Breaking(*BROKEN[case]))
    *pieces, last = [json.loads(line[6:]) for line in received.split(b"\n\n") if line]
    assert [piece["choices"][0]["delta"]["content"] for piece in pieces] == ["one ", "two"]
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert entries.outcomes() == [(*OVER, 200)]
    assert entries.only["completion_tokens"] == 2


def read_texts(client: openai.OpenAI, model: str, text: str, on_text: Callable[[list[str]], None]) -> None:
    """Read a stream, telling at every piece what has come so far. Raises what the client raises."""
    texts: list[str] = []
    for piece in client.chat.completions.create(model=model, messages=prompt(text), stream=True):
        texts.append(piece.choices[0].delta.content or "")
        on_text(texts)


def test_the_official_client_raises_in_mid_stream(world: World) -> None:
    world.upstream.script = script = Breaking(*BROKEN["an error"])
    seen: list[str] = []

    def on_text(texts: list[str]) -> None:
        seen[:] = texts
        if texts == ["one ", "two"]:
            script.now.set()

    with world.books.accounted(), pytest.raises(openai.APIError) as caught:
        read_texts(world.gateway.openai(), "openai", "", on_text)
    assert seen == ["one ", "two"]
    assert "on fire" in caught.value.message


def test_a_server_that_only_keeps_the_line_open_is_heard_out(world: World) -> None:
    world.upstream.script = stream(b": hello\n\n", b": still here\n\n")
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert (answer.status, answer.whole) == (200, True)
    assert b'"code":"upstream_error"' in answer.body
    assert entries.outcomes() == [(*OVER, 200)]


TRITON_ANSWERS: dict[str, tuple[Script, int]] = {
    "a model's error": (answers(400, b'{"error":"failed"}'), 502),
    "a dead stub": (answers(400, b'{"error":"Stub process \'demo_llm_0_0\' is not healthy."}'), 503),
    "an unknown model": (answers(400, b'{"error":"Request for unknown model: \'demo_llm\' is not found"}'), 503),
    "an error after a 200": (answers(200, b'{"error":"generated more than one response"}'), 502),
    "garbage": (answers(200, b"garbage"), 502),
    "wrong types": (answers(200, b'{"text_output":5,"finish_reason":"stop"}'), 502),
    "no end": (answers(200, b'{"text_output":"x","finish_reason":"None"}'), 502),
    "given up": (answers(200, b'{"text_output":"x","finish_reason":"abort"}'), 502),
}


@pytest.mark.parametrize("case", TRITON_ANSWERS)
def test_tritons_errors_are_not_the_clients(world: World, case: str) -> None:
    world.upstream.script, status = TRITON_ANSWERS[case]
    with world.books.accounted() as entries:
        answer = world.ask("triton")
    assert answer.status == status, answer.body
    assert_openai_error(answer.headers, answer.json(), status, "overloaded" if status == 503 else "upstream_error")
    assert entries.outcomes() == [(*(BUSY if status == 503 else OVER), status)]


@pytest.mark.parametrize("status", [500, 503])
def test_kserve_errors_have_kserves_shape(world: World, status: int) -> None:
    world.upstream.script = answers(status, b'{"error":"no"}')
    with world.books.accounted() as entries:
        answer = world.infer()
    assert answer.status == {500: 502, 503: 503}[status]
    assert_kserve_error(answer.headers, answer.json(), answer.status)
    assert entries.only["termination"] == "UPSTREAM_ERROR"


# Connections.


def test_nobody_there(world: World) -> None:
    with world.books.accounted() as entries:
        answer = world.ask("nobody")
    assert answer.status == 503
    assert_openai_error(answer.headers, answer.json(), 503, "overloaded")
    assert entries.outcomes() == [(*BUSY, 503)]


def test_a_connection_that_is_dropped_instead_of_an_answer(world: World) -> None:
    world.upstream.script = hang_up
    with world.books.accounted() as entries:
        answer = world.ask()
    assert answer.status == 503
    assert_openai_error(answer.headers, answer.json(), 503, "overloaded")
    assert entries.outcomes() == [(*BUSY, 503)]
    assert len(world.upstream.seen) == 1  # what may have begun is not tried again


def test_an_answer_that_breaks_off_before_anything_was_said(world: World) -> None:
    """Its head had come, which the gateway holds back until there is something to say."""
    world.upstream.script = stream(then=hang_up)
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert answer.status in {0, 502, 503}
    assert entries.only["termination"] in {"UPSTREAM_ERROR", "CANCELLED"}


def cut_off(call: Call) -> None:
    call.start(200, "application/json", "content-length: 1000")
    call.write(whole())
    call.hang_up()


def test_a_whole_answer_that_breaks_off_is_never_taken_for_whole(world: World) -> None:
    world.upstream.script = cut_off
    with world.books.accounted() as entries:
        answer = world.ask()
    assert answer.status in {0, 502, 503}
    assert entries.only["termination"] in {"UPSTREAM_ERROR", "CANCELLED"}


def test_a_stream_whose_server_dies_is_broken_off(world: World) -> None:
    with world.books.accounted() as entries, pytest.raises(httpx.RemoteProtocolError):
        receive(world, Breaking(then=hang_up))
    assert entries.outcomes() == [("CANCELLED", "", 200)]
    assert entries.only["completion_tokens"] == 2


def test_a_server_that_says_nothing_is_given_up(world: World) -> None:
    world.upstream.script = hang
    before = world.upstream.left
    with world.books.accounted() as entries:
        answer = world.ask()
    assert answer.status == 504
    assert_openai_error(answer.headers, answer.json(), 504, "upstream_error")
    assert entries.outcomes() == [(*OVER, 504)]
    assert world.upstream.was_left(before)


def test_a_stream_that_falls_silent_is_broken_off(world: World) -> None:
    world.upstream.script = stream(*TWO, then=hang)
    before = world.upstream.left
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert (answer.status, answer.whole) == (200, False)
    assert b"[DONE]" not in answer.body
    assert entries.only["completion_tokens"] == 2
    assert world.upstream.was_left(before)


def test_a_stream_without_an_end_is_ended(world: World) -> None:
    world.upstream.script = drip
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert (answer.status, answer.whole) == (200, False)
    assert entries.only["termination"] in {"CANCELLED", "UPSTREAM_ERROR"}
    assert entries.only["completion_tokens"] > 10


# Answers of unusual size.


def test_a_huge_answer_passes_whole(world: World) -> None:
    text = "x" * (8 << 20)
    world.upstream.script = answers(200, whole(text))
    with world.books.accounted() as entries:
        answer = world.ask()
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"]["content"] == text
    assert entries.outcomes() == [("COMPLETED", "", 200)]


def test_an_answer_beyond_all_measure_is_refused_and_not_read_on(world: World) -> None:
    def endless(call: Call) -> None:
        call.start(200, "application/json")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                call.chunk(b" " * (1 << 20))
        call.owner.left += 1

    world.upstream.script = endless
    before = world.upstream.left
    with world.books.accounted() as entries:
        answer = world.ask()
    assert answer.status == 502
    assert_openai_error(answer.headers, answer.json(), 502, "upstream_error")
    assert entries.outcomes() == [(*OVER, 502)]
    assert world.upstream.was_left(before)


def test_events_in_any_pieces_are_the_same_events(world: World) -> None:
    events = b"".join((*TWO, content("", "stop"), b"data: [DONE]\n\n"))
    world.upstream.script = stream(*(bytes([byte]) for byte in events))
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert entries.outcomes() == [("COMPLETED", "", 200)]
    assert entries.only["completion_tokens"] == 2


# One of two clusters.


def test_the_other_cluster_serves_what_one_refuses(world: World) -> None:
    world.pair[0].script = answers(503, b"{}")
    with world.books.accounted(8) as entries:
        assert {world.ask("pair").status for _ in range(8)} == {200}
    assert Counter(entries.outcomes()) == {("COMPLETED", "", 200): 8}
    assert len(world.pair[1].seen) == 8


def test_the_other_cluster_serves_while_one_is_down(tmp_path: pathlib.Path) -> None:
    with contextlib.closing(ScriptedUpstream()) as stays:
        dying = ScriptedUpstream()
        with served(tmp_path / "gateway", Upstreams(pair=(dying.port, stays.port))) as gateway:
            world = World(gateway, stays, (dying, stays))
            with world.books.accounted(6):
                assert {world.ask("pair").status for _ in range(6)} == {200}
            dying.close()
            with world.books.accounted(6) as entries:
                assert {world.ask("pair").status for _ in range(6)} == {200}
            assert {event["termination"] for event in entries.events} == {"COMPLETED"}


# Real Tritons.


def prompt(text: str) -> Any:
    return [{"role": "user", "content": f"[[demo:ttft_ms=0]][[demo:tpot_ms=10]]{text} Tell me something."}]


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
            client.embeddings.create(model="minilm", input="x")
    for error in (chat_error.value, embeddings_error.value):
        assert (error.status_code, error.code) == (503, "overloaded")
        assert error.response.headers["retry-after"] == "1"
    assert entries.outcomes() == [(*BUSY, 503)] * 2
    for name in (TRITON_A, TRITON_B):
        stack.start(name)
    assert wait_until(lambda: status_of(client, "demo-llm") == 200)
