"""`make bench`: the processor beside no-op ones and beside bare Envoy, in one run, because machines are noisy.

Prints Markdown tables for docs/performance.md. `--quick` shortens every part; `--requests N` sets the length of the
memory run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.benchmarks.rig import Heart, Rig, chat_request, cpu_s, load_run, wait_for

STREAM_CHUNKS = 500
UNITS = {"p50_ms": "p50 ms", "p99_ms": "p99 ms", "per_s": "requests/s", "cpu_us": "processor CPU, µs per request"}


def compare(hearts: list[Heart], connections: int, seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Medians over interleaved rounds, so that a slow minute of the machine hits all alike."""
    request = chat_request(2048, stream=False)
    for heart in hearts:
        load_run(heart.port, connections, 1.0, request)
    runs: dict[str, list[dict[str, float]]] = {heart.name: [] for heart in hearts}
    for _ in range(rounds):
        for heart in hearts:
            before_s = cpu_s(heart.processor)
            result = load_run(heart.port, connections, seconds, request)
            result["cpu_us"] = (cpu_s(heart.processor) - before_s) / result["requests"] * 1e6
            if result["errors"]:
                raise SystemExit(f"{heart.name}: {result['errors']:.0f} errors")
            runs[heart.name].append(result)
    return {name: {key: statistics.median(run[key] for run in own) for key in own[0]} for name, own in runs.items()}


def report_comparison(hearts: list[Heart], seconds: float, rounds: int) -> None:
    print("\n## 2 KB chat prompt, whole answer\n")
    print(
        "| connections | | bare Envoy | no-op, gRPC's server | no-op, our server | extproc |\n|---|---|---|---|---|---|"
    )
    for connections in (1, 32):
        result = compare(hearts, connections, seconds, rounds)
        for key, unit in UNITS.items():
            cells = " | ".join(f"{result[heart.name][key]:.2f}" for heart in hearts)
            print(f"| {connections} | {unit} | {cells} |")
        added = {name: result[name]["p50_ms"] - result["bare"]["p50_ms"] for name in ("grpc", "edge", "ours")}
        for noop in ("grpc", "edge"):
            throughput = result["ours"]["per_s"] / result[noop]["per_s"]
            print(
                f"| {connections} | **extproc : no-op ({noop})** | added p50 x {added['ours'] / added[noop]:.2f} "
                f"| throughput x {throughput:.2f} | | |",
                flush=True,
            )


def report_stream(hearts: list[Heart], requests: int) -> None:
    """CPU of the processor per SSE event, the cost of opening a stream included but spread over its events."""
    print(f"\n## Streams of {STREAM_CHUNKS} events, 8 at a time: processor CPU per event\n")
    print("| | no-op, gRPC's server | no-op, our server | extproc |\n|---|---|---|---|")
    cells = []
    for heart in hearts:
        if heart.processor is None:
            continue
        before_s = cpu_s(heart.processor)
        done = 0.0
        while done < requests:
            done += load_run(heart.port, 8, 0.01, chat_request(2048, stream=True))["requests"]
        cells.append((cpu_s(heart.processor) - before_s) / (done * (STREAM_CHUNKS + 2)) * 1e6)
    print(f"| µs per event | {' | '.join(f'{cell:.1f}' for cell in cells)} |", flush=True)


def report_memory(heart: Heart, requests: int) -> None:
    assert heart.processor is not None
    print(f"\n## Resident memory of one worker over {requests} requests\n\n| requests | MiB |\n|---|---|")
    request, done = chat_request(2048, stream=False), 0.0
    step = requests / 5
    print(f"| 0 | {heart.processor.memory_info().rss / 2**20:.1f} |")
    for part in range(1, 6):
        while done < part * step:
            done += load_run(heart.port, 32, 5.0, request)["requests"]
        print(f"| {done:.0f} | {heart.processor.memory_info().rss / 2**20:.1f} |", flush=True)


def report_start(rig: Rig) -> None:
    print("\n## Start-up of `extproc serve`, to /readyz\n\n| try | s |\n|---|---|")
    for attempt in range(3):
        config, path = rig.config(f"start{attempt}")
        began_s = time.monotonic()
        process = rig.spawn(sys.executable, "-m", "extproc", "serve", "--config", path)
        wait_for(config.service.admin.port, "/readyz")
        print(f"| {attempt + 1} | {time.monotonic() - began_s:.2f} |", flush=True)
        process.terminate()
        process.wait(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs")
    parser.add_argument("--requests", type=int, default=100_000, help="length of the memory run")
    options = parser.parse_args()
    seconds, rounds = (1.0, 3) if options.quick else (4.0, 5)
    print(f"{psutil.cpu_count()} cores, Python {sys.version.split()[0]}, one worker, Envoy with one thread")
    with (
        tempfile.TemporaryDirectory(prefix="extproc-bench-") as run_dir,
        Rig(Path(run_dir), STREAM_CHUNKS, 0.002) as rig,
    ):
        report_start(rig)
        hearts = [rig.bare(), rig.noop("grpc"), rig.noop("edge"), rig.ours()]
        report_comparison(hearts, seconds, rounds)
        report_stream(hearts, 16 if options.quick else 64)
        report_memory(hearts[-1], 5_000 if options.quick else options.requests)


if __name__ == "__main__":
    main()
