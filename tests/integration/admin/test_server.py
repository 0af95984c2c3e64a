"""The admin interface over real HTTP."""

import asyncio
import contextlib
import json
import multiprocessing
import pathlib
import socket
import threading
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from extproc.admin import server as server_module
from extproc.admin.server import start_admin
from extproc.admin.thread import AdminThread
from extproc.config.address import TcpAddress


@contextlib.asynccontextmanager
async def client(
    ready: Callable[[], bool] = lambda: True, registry: CollectorRegistry | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    server = await start_admin(
        TcpAddress("127.0.0.1", 0), ready=ready, info=lambda: {"version": "1.2"}, registry=registry
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
        yield http
    await server.close()


async def test_readiness_follows_what_it_is_told() -> None:
    state = {"ready": False}
    async with client(lambda: state["ready"]) as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 503
        state["ready"] = True
        assert (await http.get("/readyz")).status_code == 200


async def test_information_is_json() -> None:
    async with client() as http:
        assert (await http.get("/config")).json() == {"version": "1.2"}


async def test_metrics_of_one_process() -> None:
    registry = CollectorRegistry()
    Counter("seen", "Seen.", registry=registry).inc(3)
    async with client(registry=registry) as http:
        answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "seen_total 3.0" in answer.text


async def test_who_asks_for_openmetrics_gets_it() -> None:
    registry = CollectorRegistry()
    Counter("seen", "Seen.", registry=registry).inc()
    async with client(registry=registry) as http:
        answer = await http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def _count_in_a_worker() -> None:
    Counter("seen", "Seen.", registry=CollectorRegistry()).inc(2)


async def test_metrics_of_several_processes_are_added_up(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_count_in_a_worker) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    async with client() as http:
        assert "seen_total 4.0" in (await http.get("/metrics")).text


async def test_a_taken_port_is_an_error() -> None:
    first = await start_admin(TcpAddress("127.0.0.1", 0), ready=lambda: True, info=dict)
    try:
        with pytest.raises(OSError, match="address already in use"):
            await start_admin(TcpAddress("127.0.0.1", first.port), ready=lambda: True, info=dict)
    finally:
        await first.close()


@pytest.mark.parametrize(
    "said",
    [
        b"GET /api/v1/keys?team=" + b"a" * 9000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 20_000 + b"\r\n\r\n",
    ],
    ids=["a long line", "TLS", "a long header"],
)
async def test_what_is_no_request_is_refused_like_anything_else(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    server = await start_admin(TcpAddress("127.0.0.1", 0), ready=lambda: True, info=dict)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(said)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await server.close()
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert json.loads(body)["error"]["code"] == "invalid_request"
    assert caplog.records == []


async def test_connections_are_bounded_and_come_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 3)
    server = await start_admin(TcpAddress("127.0.0.1", 0), ready=lambda: True, info=dict)
    idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
        with pytest.raises(httpx.TransportError):
            await http.get("/healthz")
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get("/healthz")).status_code == 200:
                        break
    await server.close()


async def test_a_server_that_is_held_up_in_its_thread_holds_up_nobody_else() -> None:
    released = threading.Event()

    def hang() -> dict[str, object]:
        released.wait(20)
        return {}

    thread = await AdminThread.start(lambda: start_admin(TcpAddress("127.0.0.1", 0), ready=lambda: True, info=hang))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{thread.port}", timeout=10) as http:
        asked = asyncio.create_task(http.get("/config"))
        await asyncio.sleep(0.2)
        assert not asked.done()  # and this loop goes on
        released.set()
        assert (await asked).status_code == 200
    await thread.close()


async def test_a_taken_port_is_told_to_who_starts_the_thread() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="address already in use"):
            await AdminThread.start(
                lambda: start_admin(TcpAddress("127.0.0.1", taken.getsockname()[1]), ready=lambda: True, info=dict)
            )
