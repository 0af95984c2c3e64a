"""Clients that lie, dawdle, leave or speak unusually: nothing is lost or leaks, every request is on record once."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from extproc.config.model import GrpcServer
from tests.helpers.accounting import Books, books_of, triton_metric
from tests.helpers.errors import assert_openai_error
from tests.helpers.processes import wait_until
from tests.helpers.raw_http import Connection, chunked, exchange, request
from tests.helpers.raw_http2 import Http2Connection
from tests.helpers.scripted_upstream import ScriptedUpstream, chat, content, drip, hang, stream
from tests.helpers.services import KEY, ServedGateway, Upstreams, Worlds, on_both_servers, served

if TYPE_CHECKING:
    from extproc.stack.stack import Stack

CHAT = "/v1/chat/completions"
LONG = "[[demo:tokens=900]][[demo:tpot_ms=20]] tell me a long story"
AUTHORIZED = [("authorization", f"Bearer {KEY}")]


def body(**changes: Any) -> bytes:
    return json.dumps({"model": "openai", "messages": [{"role": "user", "content": "Hello!"}], **changes}).encode()


@dataclass
class World:
    gateway: ServedGateway
    upstream: ScriptedUpstream

    @property
    def port(self) -> int:
        return self.gateway.port

    @property
    def books(self) -> Books:
        return self.gateway.books


@pytest.fixture(scope="module")
def _worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds[World]]:
    @contextlib.contextmanager
    def opened(server: GrpcServer) -> Iterator[World]:
        with (
            contextlib.closing(ScriptedUpstream()) as upstream,
            served(tmp_path_factory.mktemp("clients"), Upstreams(openai=upstream.port), server=server) as gateway,
        ):
            yield World(gateway, upstream)

    with contextlib.closing(Worlds(opened)) as worlds:
        yield worlds


@pytest.fixture
def world(_worlds: Worlds[World], request: pytest.FixtureRequest) -> World:
    world = _worlds.of(request)
    world.upstream.script = chat
    world.upstream.seen.clear()
    return world


# Lies about the length, and bodies that never come.


def test_a_length_that_is_too_short_cuts_the_body_there(world: World) -> None:
    with world.books.accounted() as entries, Connection(world.port) as connection:
        connection.send(request(CHAT, body(), key=KEY, headers="content-length: 10"))
        first, second = connection.answer(), connection.answer()
    assert_openai_error(first.headers, first.json(), 400, None)
    assert second.status in {0, 400}  # the rest is no request: refused, or the connection is closed on it
    assert entries.outcomes() == [("REJECTED", "invalid_request", 400)]
    assert world.upstream.seen == []


@on_both_servers
@pytest.mark.parametrize("framing", ["content-length: 1000", "transfer-encoding: chunked"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_while_it_sends(world: World, framing: str, reset: bool) -> None:
    with world.books.accounted() as entries, Connection(world.port) as connection:
        connection.send(request(CHAT, headers=framing, key=KEY) + b"5\r\nabcde\r\n")
        assert wait_until(lambda: world.books.in_flight() == 1)
        if reset:
            connection.abort()
    assert entries.outcomes() == [("CANCELLED", "", 0)]
    assert entries.only["principal"] == "every"
    assert world.upstream.seen == []


def test_a_body_that_does_not_come_is_waited_for_just_so_long(world: World) -> None:
    with world.books.accounted() as entries:
        answer = exchange(world.port, request(CHAT, body(), key=KEY, headers="content-length: 1000"))
    assert answer.status == 408
    assert_openai_error(answer.headers, answer.json(), 408, "request_timeout")
    assert entries.outcomes() == [("REJECTED", "envoy_reply", 408)]
    assert world.upstream.seen == []


@on_both_servers
def test_a_body_that_drips_in_is_not_waited_for_either(world: World) -> None:
    with world.books.accounted() as entries, Connection(world.port) as connection:
        connection.send(request(CHAT, headers="content-length: 1000000", key=KEY))
        connection.socket.settimeout(0.05)
        answered = wait_until(lambda: not dripped(connection))
        connection.socket.settimeout(20)
        assert answered
        assert connection.answer().status == 408
    assert entries.outcomes() == [("REJECTED", "envoy_reply", 408)]


def dripped(connection: Connection) -> bool:
    """Send one byte more; False once there is an answer instead of patience."""
    connection.send_what_is_taken(b" ")
    with contextlib.suppress(TimeoutError):
        return not connection.peek()
    return True


# Clients that leave before the end.


@on_both_servers
def test_a_client_that_leaves_while_it_waits(world: World) -> None:
    world.upstream.script = hang
    before = world.upstream.left
    with world.books.accounted() as entries:
        with Connection(world.port) as connection:
            connection.send(request(CHAT, body(), key=KEY))
            assert wait_until(lambda: len(world.upstream.seen) == 1)
        assert world.upstream.was_left(before)
    assert entries.outcomes() == [("CANCELLED", "", 0)]
    assert (entries.only["prompt_tokens"] > 0, entries.only["completion_tokens"]) == (True, 0)


def test_a_client_that_leaves_in_mid_stream_pays_for_what_it_got(world: World) -> None:
    world.upstream.script = drip
    before = world.upstream.left
    with world.books.accounted() as entries:
        with Connection(world.port) as connection:
            connection.send(request(CHAT, body(stream=True), key=KEY))
            for _ in range(3):
                assert connection.read_until(b'"content": "word "')
        assert world.upstream.was_left(before)
    assert entries.outcomes() == [("CANCELLED", "", 200)]
    assert entries.only["completion_tokens"] >= 3
    assert entries.only["upstream_usage"] is False


@on_both_servers
def test_many_clients_leave_at_once(world: World) -> None:
    world.upstream.script = drip
    before = world.upstream.left
    with world.books.accounted(20) as entries, contextlib.ExitStack() as connections:
        opened = [connections.enter_context(Connection(world.port)) for _ in range(20)]
        for connection in opened:
            connection.send(request(CHAT, body(stream=True), key=KEY))
        for connection in opened:
            assert connection.read_until(b'"content": "word "')
        for connection in opened:
            connection.abort()
        assert world.upstream.was_left(before + 19)
    assert {event["termination"] for event in entries.events} == {"CANCELLED"}
    assert min(event["completion_tokens"] for event in entries.events) >= 1


def test_a_model_stops_generating_for_a_client_that_left(stack: "Stack", stack_key: str) -> None:
    books = books_of(stack)
    client = openai.OpenAI(base_url=stack.base_url, api_key=stack_key, max_retries=0)
    with client, books.accounted() as entries:
        answer = client.chat.completions.create(
            model="demo-llm", messages=[{"role": "user", "content": LONG}], stream=True
        )
        for _ in zip(range(5), answer, strict=False):
            pass
        assert triton_metric(stack, "demo_llm_running") == 1
        answer.close()
        assert wait_until(lambda: triton_metric(stack, "demo_llm_running") == 0)
    assert entries.outcomes() == [("CANCELLED", "", 200)]
    assert 4 <= entries.only["completion_tokens"] < 400
    assert entries.only["prompt_tokens"] > 10


def test_a_client_that_left_before_the_first_token(stack: "Stack", stack_key: str) -> None:
    books = books_of(stack)
    prompt = "[[demo:ttft_ms=400]][[demo:tokens=900]] tell me"
    asked = {"model": "demo-llm", "messages": [{"role": "user", "content": prompt}], "stream": True}
    with books.accounted() as entries:
        with Connection(stack.config.gateway.listen.port) as connection:
            connection.send(request(CHAT, json.dumps(asked).encode(), key=stack_key))
            assert wait_until(lambda: triton_metric(stack, "demo_llm_running") == 1)
        assert wait_until(lambda: triton_metric(stack, "demo_llm_running") == 0)
    assert entries.outcomes() == [("CANCELLED", "", 0)]
    assert entries.only["completion_tokens"] == 0


# Clients that read slowly.


@on_both_servers
def test_a_slow_reader_holds_the_model_server_back_and_loses_nothing(world: World) -> None:
    # Far more than the kernel's buffers on both sides of Envoy may grow to.
    pieces = [content(f"{number:05} " + "x" * 80_000) for number in range(1000)]
    world.upstream.script = stream(*pieces, content("", "stop"), b"data: [DONE]\n\n")
    world.upstream.written_bytes = 0
    with world.books.accounted() as entries, Connection(world.port, receive_buffer_bytes=4096) as connection:
        connection.send(request(CHAT, body(model="patient", stream=True), key=KEY))
        assert wait_until(world.upstream.stalls)
        assert world.upstream.written_bytes < 0.7 * sum(map(len, pieces))
        answer = connection.answer()
    assert answer.whole
    events = [json.loads(line[6:]) for line in answer.body.split(b"\n\n") if line.startswith(b"data: {")]
    texts = [event["choices"][0]["delta"].get("content") or "" for event in events]
    assert [text[:5] for text in texts if text] == [f"{number:05}" for number in range(1000)]
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert entries.outcomes() == [("COMPLETED", "", 200)]


# Unusual ways of asking.


def test_requests_sent_ahead_are_answered_in_their_order(world: World) -> None:
    with world.books.accounted(3) as entries, Connection(world.port) as connection:
        connection.send(
            request(CHAT, body(), key=KEY)
            + request(CHAT, body(stream=True), key=KEY)
            + request("/v1/models", method="GET", key=KEY)
        )
        whole, streamed, models = connection.answer(), connection.answer(), connection.answer()
    assert whole.json()["choices"][0]["message"]["content"] == "hello there"
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    assert models.json()["object"] == "list"
    assert {event["termination"] for event in entries.events} == {"COMPLETED"}


def test_a_refusal_does_not_spoil_the_connection(world: World) -> None:
    with world.books.accounted(4), Connection(world.port) as connection:
        for key, status in ((None, 401), (KEY, 200), ("", 401), (KEY, 200)):
            connection.send(request(CHAT, body(), key=key))
            assert connection.answer().status == status


def test_who_asks_before_sending_a_body_is_told_to(world: World) -> None:
    with world.books.accounted() as entries, Connection(world.port) as connection:
        connection.send(request(CHAT, key=KEY, headers=f"expect: 100-continue\ncontent-length: {len(body())}"))
        assert connection.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        connection.send(body())
        assert connection.answer().status == 200
    assert entries.outcomes() == [("COMPLETED", "", 200)]


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.2"])
def test_the_protocol_can_not_be_changed(world: World, protocol: str) -> None:
    headers = f"connection: upgrade\nupgrade: {protocol}"
    answer = exchange(world.port, request(CHAT, body(), key=KEY, headers=headers))
    assert answer.status in {200, 400, 403}  # never 101
    assert wait_until(lambda: world.books.in_flight() == 0)


def test_trailers_of_http1_change_nothing(world: World) -> None:
    data = request(CHAT, chunked(body(), trailers="x-a: b"), key=KEY, headers="transfer-encoding: chunked")
    with world.books.accounted() as entries:
        assert exchange(world.port, data).status == 200
    assert entries.outcomes() == [("COMPLETED", "", 200)]
    assert json.loads(world.upstream.seen[-1].body)["model"] == "x"


def test_trailers_of_http2_change_nothing(world: World) -> None:
    with world.books.accounted(), Http2Connection(world.port) as connection:
        asked = connection.post(CHAT, body(), AUTHORIZED, trailers=[("x-a", "b"), ("x-extproc-pool", "nobody")])
        assert connection.read_until(asked).status == 200
    assert json.loads(world.upstream.seen[-1].body)["model"] == "x"


@on_both_servers
def test_a_large_body_with_trailers_is_refused_rather_than_doubled(world: World) -> None:
    large = body(user="x" * 700_000)
    with world.books.accounted() as entries, Http2Connection(world.port) as connection:
        asked = connection.post(CHAT, large, AUTHORIZED, trailers=[("x-a", "b")])
        response = connection.read_until(asked)
    assert response.status == 413
    assert_openai_error(response.headers, json.loads(response.body), 413, "request_too_large")
    assert entries.outcomes() == [("REJECTED", "request_too_large", 413)]
    assert world.upstream.seen == []


@on_both_servers
def test_an_http2_stream_that_is_reset_ends_alone(world: World) -> None:
    world.upstream.script = drip
    before = world.upstream.left
    with world.books.accounted(2) as entries, Http2Connection(world.port) as connection:
        leaves, stays = (connection.post(CHAT, body(stream=True), AUTHORIZED) for _ in range(2))
        connection.read_until(leaves, b"word")
        connection.read_until(stays, b"word")
        connection.reset(leaves)
        assert world.upstream.was_left(before)
        assert world.upstream.left == before + 1
        assert wait_until(lambda: world.books.in_flight() == 1)
        connection.read_until(stays, b"word", times=50)
    assert entries.outcomes() == [("CANCELLED", "", 200)] * 2


def test_http2_is_served_like_http1(world: World) -> None:
    with (
        world.books.accounted(3) as entries,
        httpx.Client(http1=False, http2=True, base_url=f"http://127.0.0.1:{world.port}") as client,
    ):
        good = client.post(CHAT, content=body(), headers=AUTHORIZED)
        refused = client.post(CHAT, content=body())
        streamed = client.post(CHAT, content=body(stream=True), headers=AUTHORIZED)
    assert (good.http_version, good.status_code) == ("HTTP/2", 200)
    assert_openai_error(refused.headers, refused.json(), 401, "invalid_api_key")
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert Counter(entries.outcomes()) == {("COMPLETED", "", 200): 2, ("REJECTED", "unauthenticated", 401): 1}


# Many at once.


@on_both_servers
def test_a_finished_exchange_is_never_accounted_as_cancelled(world: World) -> None:
    """Envoy hangs up as soon as it has our last word, which may be before we have noticed that we said it."""
    asked = [
        ("POST", CHAT, body()),
        ("POST", CHAT, body(stream=True)),
        ("GET", "/v1/models", b""),
        ("POST", CHAT, body(messages=[])),
        ("POST", "/v1/nothing", b"x" * 100_000),
    ]

    async def ask_all() -> None:
        limits = httpx.Limits(max_connections=24)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.port}", limits=limits, timeout=60) as client:
            headers = dict(AUTHORIZED)
            requests = (
                client.request(method, path, content=data, headers=headers) for method, path, data in asked * 60
            )
            await asyncio.gather(*requests)

    with world.books.accounted(300) as entries:
        asyncio.run(ask_all())
    assert Counter(entries.outcomes()) == {
        ("COMPLETED", "", 200): 180,
        ("REJECTED", "invalid_request", 400): 60,
        ("REJECTED", "unknown_path", 404): 60,
    }
