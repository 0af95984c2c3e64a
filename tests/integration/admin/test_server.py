"""The admin interface over real HTTP."""

import contextlib
import multiprocessing
import pathlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from extproc.admin.server import start_admin
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
