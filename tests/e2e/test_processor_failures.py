"""The service killed, hung or gone: requests fail closed and soon, each is on record, and all comes back by itself."""

import contextlib
import json
import pathlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import psutil
import pytest

from extproc.config.model import GrpcServer
from tests.helpers.accounting import Books
from tests.helpers.errors import assert_openai_error
from tests.helpers.processes import wait_until
from tests.helpers.raw_http import Answer, Connection, exchange, request
from tests.helpers.scripted_upstream import ScriptedUpstream, chat, drip, hang
from tests.helpers.services import KEY, ServedGateway, Upstreams, Worlds, on_both_servers, served

CHAT = "/v1/chat/completions"
HANG_BOUND_S = 8.0  # 5 s by the documentation; the machine may be busy
LOST = ("INTERNAL_ERROR", "worker_died", 0)


def body(*, stream: bool = False) -> bytes:
    messages = [{"role": "user", "content": "Hello!"}]
    return json.dumps({"model": "patient", "messages": messages, "stream": stream}).encode()


@dataclass
class World:
    gateway: ServedGateway
    upstream: ScriptedUpstream

    @property
    def books(self) -> Books:
        return self.gateway.books

    def ask(self) -> Answer:
        return exchange(self.gateway.port, request(CHAT, body(), key=KEY))

    def serves(self) -> bool:
        return self.ask().status == 200

    def worker(self) -> psutil.Process:
        (worker,) = self.gateway.workers()
        return worker

    def replace_worker(self) -> None:
        """Kill it and wait for the next."""
        gone = self.worker()
        gone.kill()
        assert wait_until(lambda: any(worker.pid != gone.pid for worker in self.gateway.workers()))

    def recover(self) -> None:
        self.upstream.script = chat
        assert wait_until(lambda: bool(self.gateway.workers()))
        assert wait_until(self.serves)
        assert wait_until(lambda: self.books.in_flight() == 0)


@pytest.fixture(scope="module")
def _worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds[World]]:
    @contextlib.contextmanager
    def opened(server: GrpcServer) -> Iterator[World]:
        with (
            contextlib.closing(ScriptedUpstream()) as upstream,
            served(tmp_path_factory.mktemp("processor"), Upstreams(openai=upstream.port), server=server) as gateway,
        ):
            yield World(gateway, upstream)

    with contextlib.closing(Worlds(opened)) as worlds:
        yield worlds


@pytest.fixture
def world(_worlds: Worlds[World], request: pytest.FixtureRequest) -> Iterator[World]:
    world = _worlds.of(request)
    world.recover()
    yield world
    world.gateway.service.resume()
    if not world.gateway.service.running:
        world.gateway.service.kill()
        world.gateway.start_service()
    world.recover()


@dataclass
class Streaming:
    """A client in the middle of a stream, in a thread of its own."""

    world: World
    outcome: list[str] = field(default_factory=list)

    def __enter__(self) -> "Streaming":
        self.world.upstream.script = drip
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert wait_until(lambda: self.outcome == ["begun"])
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(HANG_BOUND_S)
        assert not self._thread.is_alive()

    def _read(self) -> None:
        with self.world.gateway.client() as client, contextlib.suppress(httpx.HTTPError):
            with client.stream("POST", CHAT, content=body(stream=True)) as response:
                for data in response.iter_raw():
                    if b"word" in data and not self.outcome:
                        self.outcome.append("begun")
            self.outcome.append("ended as if whole")
            return
        self.outcome.append("broken off")


@on_both_servers
def test_a_worker_killed_in_mid_stream(world: World) -> None:
    before = world.upstream.left
    with world.books.accounted() as entries, Streaming(world) as streaming:
        world.worker().kill()
        assert world.upstream.was_left(before)
    assert streaming.outcome == ["begun", "broken off"]
    assert entries.outcomes() == [LOST]
    assert (entries.only["principal"], entries.only["model"]) == ("every", "patient")
    assert entries.only["prompt_tokens"] > 0
    world.recover()  # the supervisor has started another; Envoy was not touched


def test_a_worker_killed_while_the_model_thinks(world: World) -> None:
    world.upstream.script = hang
    seen, before = len(world.upstream.seen), world.upstream.left
    with world.books.accounted() as entries, Connection(world.gateway.port) as connection:
        connection.send(request(CHAT, body(), key=KEY))
        assert wait_until(lambda: len(world.upstream.seen) > seen)
        world.worker().kill()
        answer = connection.answer()
        assert world.upstream.was_left(before)
    assert answer.status == 503
    assert_openai_error(answer.headers, answer.json(), 503, "overloaded")
    assert entries.outcomes() == [LOST]


@on_both_servers
def test_a_worker_killed_while_the_request_comes(world: World) -> None:
    seen = len(world.upstream.seen)
    with world.books.accounted() as entries, Connection(world.gateway.port) as connection:
        connection.send(request(CHAT, body()[:20], key=KEY, headers=f"content-length: {len(body())}"))
        assert wait_until(lambda: world.books.in_flight() == 1)
        world.worker().kill()
        connection.send_what_is_taken(body()[20:])
        answer = connection.answer()
    assert answer.status == 503
    assert_openai_error(answer.headers, answer.json(), 503, "overloaded")
    assert entries.outcomes() == [LOST]
    assert len(world.upstream.seen) == seen


@on_both_servers
def test_a_worker_that_hangs(world: World) -> None:
    seen, recorded = len(world.upstream.seen) + 1, len(world.books.events())
    with Streaming(world) as streaming:
        worker = world.worker()
        worker.suspend()
        began_s = time.monotonic()
        answer = world.ask()
        assert answer.status == 503
        assert_openai_error(answer.headers, answer.json(), 503, "overloaded")
    assert time.monotonic() - began_s < HANG_BOUND_S
    assert streaming.outcome == ["begun", "broken off"]
    # Health checks have failed by now, or soon will: nobody waits any more.
    assert wait_until(lambda: "/failed_active_hc" in "".join(world.gateway.clusters("extproc")))
    assert world.ask().status == 503
    assert len(world.upstream.seen) == seen
    worker.resume()
    world.recover()
    assert world.worker().pid == worker.pid
    assert len(world.upstream.seen) == seen + 1  # the one that shows it serves: nothing stale was sent on
    ended = Counter(event["termination"] for event in world.books.events()[recorded:])
    assert ended["CANCELLED"] in {1, 2}  # the stream, and the other request if it was ever read
    assert set(ended) == {"CANCELLED", "COMPLETED"}


def test_the_service_killed_and_started_again(world: World) -> None:
    """Supervisor and all; Envoy stays as it is."""
    envoy = world.gateway.envoy.pid
    seen = len(world.upstream.seen)
    world.gateway.service.kill()
    for _ in range(3):
        answer = world.ask()
        assert answer.status == 503
        assert_openai_error(answer.headers, answer.json(), 503, "overloaded")
    models = exchange(world.gateway.port, request("/v1/models", method="GET", key=KEY))
    assert models.status == 503
    assert len(world.upstream.seen) == seen
    world.gateway.start_service()
    assert wait_until(world.serves)
    assert world.gateway.envoy.pid == envoy


def test_workers_leave_with_their_supervisor(world: World) -> None:
    workers = world.gateway.workers()
    assert world.gateway.service.pid is not None
    psutil.Process(world.gateway.service.pid).send_signal(signal.SIGKILL)
    assert psutil.wait_procs(workers, timeout=5)[1] == []
    assert world.ask().status == 503
    world.gateway.service.kill()
    world.gateway.start_service()
    assert wait_until(world.serves)


def test_a_worker_that_dies_again_and_again_is_started_again_and_again(world: World) -> None:
    for _ in range(3):
        world.replace_worker()
    assert wait_until(world.serves)


def test_one_of_two_workers_killed(tmp_path: pathlib.Path) -> None:
    """The other one serves; what the dead one had is lost, and on record."""
    with (
        contextlib.closing(ScriptedUpstream()) as upstream,
        served(tmp_path, Upstreams(openai=upstream.port), workers=2) as gateway,
    ):
        world = World(gateway, upstream)
        upstream.script = drip
        with gateway.books.accounted(8) as entries, contextlib.ExitStack() as connections:
            opened = [connections.enter_context(Connection(gateway.port)) for _ in range(8)]
            for connection in opened:
                connection.send(request(CHAT, body(stream=True), key=KEY))
                assert connection.read_until(b'"content": "word "')
            gateway.workers()[0].kill()
            assert wait_until(lambda: 0 < lost(gateway) == 8 - gateway.books.in_flight())
            died = lost(gateway)
            for connection in opened:
                connection.abort()
        assert Counter(event["termination"] for event in entries.events) == {
            "INTERNAL_ERROR": died,
            "CANCELLED": 8 - died,
        }
        assert 1 <= died <= 7
        upstream.script = chat
        assert wait_until(lambda: len(gateway.workers()) == 2)
        assert wait_until(gateway.sees_service)
        assert {world.ask().status for _ in range(10)} == {200}


def lost(gateway: ServedGateway) -> int:
    return sum(event["reason"] == "worker_died" for event in gateway.books.events())
