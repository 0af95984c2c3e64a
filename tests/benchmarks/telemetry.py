"""What telemetry costs: tracing at several shares, and a scrape of many series.

    python tests/benchmarks/telemetry.py tracing | scrape

Tracing: a 2 KB chat answered whole, 32 connections, one worker, with a collector that takes everything unread; medians
over interleaved rounds. Scrape: GET /metrics of a supervisor whose two workers have so many series.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from extproc.config.model import GrpcServer
from tests.benchmarks.rig import Heart, Rig, chat_request, cpu_s, free_port, load_run

SHARES = (None, 0, 1, 100)
SERIES = 10_000
WORKERS = 2
_BUCKETS = 16
OPENMETRICS = {"accept": "application/openmetrics-text"}


def tracing(server: GrpcServer, connections: int = 32, seconds: float = 2.0, rounds: int = 5) -> None:
    print(f"\n| tracing, {server} | requests/s | p50 ms | worker's CPU, µs per request |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="extproc-bench-") as run_dir, Rig(Path(run_dir)) as rig:
        port = free_port()
        rig.spawn(sys.executable, "-m", "tests.helpers.collector", port, os.devnull)
        hearts = [rig.ours(server, f"share-{share}", _tracing(port, share)) for share in SHARES]
        request = chat_request(2048, stream=False)
        for heart in hearts:
            load_run(heart.port, connections, 0.5, request)
        runs: dict[str, list[dict[str, float]]] = {heart.name: [] for heart in hearts}
        for _ in range(rounds):
            for heart in hearts:
                runs[heart.name].append(_measured(heart, connections, seconds, request))
    for share, own in zip(SHARES, runs.values(), strict=True):
        per_s, p50_ms, cpu_us = (statistics.median(run[key] for run in own) for key in ("per_s", "p50_ms", "cpu_us"))
        print(f"| {'off' if share is None else f'{share} %'} | {per_s:.0f} | {p50_ms:.2f} | {cpu_us:.0f} |")


def _tracing(port: int, share: int | None) -> str:
    if share is None:
        return ""
    return f'telemetry: {{tracing: {{otlp_grpc: "127.0.0.1:{port}", sampling_percent: {share}}}}}\n'


def _measured(heart: Heart, connections: int, seconds: float, request: bytes) -> dict[str, float]:
    before_s = cpu_s(heart.processor)
    result = load_run(heart.port, connections, seconds, request)
    result["cpu_us"] = (cpu_s(heart.processor) - before_s) / result["requests"] * 1e6
    return result


def scrape(rounds: int = 15) -> None:
    with tempfile.TemporaryDirectory(prefix="extproc-bench-") as run_dir:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = run_dir
        spawn = multiprocessing.get_context("spawn")
        for _ in range(WORKERS):
            worker = spawn.Process(target=_count_much)
            worker.start()
            worker.join()
        asyncio.run(_scrape(rounds))


def _count_much() -> None:
    """The series of one worker: histograms of many models, for that is where series come from."""
    from prometheus_client import CollectorRegistry, Histogram

    from extproc.telemetry.exemplars import Exemplars
    from extproc.telemetry.metrics import pin_process

    pin_process()
    bounds = tuple(float(number) for number in range(_BUCKETS - 1))
    histogram = Histogram("seconds", "Seconds.", ("model",), buckets=bounds, registry=CollectorRegistry())
    exemplars = Exemplars(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    for number in range(SERIES // (_BUCKETS + 2)):  # and a sum and a count
        model = f"model-{number}"
        histogram.labels(model).observe(number % _BUCKETS)
        if number % 2:
            exemplars.keep("seconds", (*bounds, float("inf")), {"model": model}, number % _BUCKETS, "0" * 32)


async def _scrape(rounds: int) -> None:
    from extproc.admin.server import start_admin
    from extproc.config.address import TcpAddress

    server = await start_admin(TcpAddress("127.0.0.1", 0), ready=lambda: True, info=dict)
    print("\n| /metrics | series | bytes | ms, median |\n|---|---|---|---|")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as http:
        for name, headers in (("text", {}), ("OpenMetrics", OPENMETRICS)):
            took_ms = []
            for _ in range(rounds):
                began_s = time.perf_counter()
                page = (await http.get("/metrics", headers=headers)).content
                took_ms.append((time.perf_counter() - began_s) * 1e3)
            series = sum(not line.startswith(b"#") for line in page.splitlines())
            print(f"| {name} | {series} | {len(page)} | {statistics.median(took_ms):.0f} |")
    await server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["tracing", "scrape"], help="tracing, scrape; both by default")
    options = parser.parse_args()
    if "tracing" in options.parts:
        for server in GrpcServer:
            tracing(server)
    if "scrape" in options.parts:
        scrape()


if __name__ == "__main__":
    main()
