"""`make bench`: the processor beside no-op ones and beside bare Envoy, in one run, because machines are noisy.

Prints Markdown tables for docs/performance.md. `--quick` shortens every part; `--requests N` sets the length of the
memory runs; parts are named to run only these.
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

from extproc.config.model import GrpcServer
from tests.benchmarks.rig import Heart, Rig, chat_request, cpu_s, load_run, wait_for

STREAM_CHUNKS = 500
PARTS = ("start", "whole", "stream", "memory")
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


def print_head(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |\n{'|---' * len(cells)}|")


def report_comparison(hearts: list[Heart], seconds: float, rounds: int) -> None:
    print("\n## 2 KB chat prompt, whole answer\n")
    print_head("connections", "", *(heart.name for heart in hearts))
    for connections in (1, 32):
        result = compare(hearts, connections, seconds, rounds)
        for key, unit in UNITS.items():
            cells = " | ".join(f"{result[heart.name][key]:.2f}" for heart in hearts)
            print(f"| {connections} | {unit} | {cells} |")
        report_ratios(connections, result)


def report_ratios(connections: int, result: dict[str, dict[str, float]]) -> None:
    """What extproc adds to bare Envoy, beside what the no-op that stands for any processor adds, and its like."""
    added_ms = {name: values["p50_ms"] - result["bare"]["p50_ms"] for name, values in result.items()}
    for server in GrpcServer:
        ours = f"extproc-{server}"
        for noop in dict.fromkeys((f"noop-{GrpcServer.GRPCIO}", f"noop-{server}")):
            throughput = result[ours]["per_s"] / result[noop]["per_s"]
            added = added_ms[ours] / added_ms[noop]
            print(f"| {connections} | **{ours} : {noop}** | added p50 x {added:.2f} | throughput x {throughput:.2f} |")
    sys.stdout.flush()


def report_stream(hearts: list[Heart], requests: int) -> None:
    """CPU of the processor per SSE event, the cost of opening a stream included but spread over its events."""
    print(f"\n## Streams of {STREAM_CHUNKS} events, 8 at a time: processor CPU per event\n")
    hearts = [heart for heart in hearts if heart.processor is not None]
    print_head("", *(heart.name for heart in hearts))
    cells = []
    for heart in hearts:
        before_s = cpu_s(heart.processor)
        done = 0.0
        while done < requests:
            done += load_run(heart.port, 8, 0.01, chat_request(2048, stream=True))["requests"]
        cells.append((cpu_s(heart.processor) - before_s) / (done * (STREAM_CHUNKS + 2)) * 1e6)
    print(f"| µs per event | {' | '.join(f'{cell:.1f}' for cell in cells)} |", flush=True)


def report_memory(heart: Heart, requests: int) -> None:
    assert heart.processor is not None
    print(f"\n## {heart.name}: resident memory of one worker over {requests} requests\n")
    print_head("requests", "MiB")
    request, done = chat_request(2048, stream=False), 0.0
    step = requests / 5
    print(f"| 0 | {heart.processor.memory_info().rss / 2**20:.1f} |")
    for part in range(1, 6):
        while done < part * step:
            done += load_run(heart.port, 32, 5.0, request)["requests"]
        print(f"| {done:.0f} | {heart.processor.memory_info().rss / 2**20:.1f} |", flush=True)


def report_start(rig: Rig) -> None:
    print("\n## Start-up of `extproc serve`, to /readyz\n")
    print_head("server", "s")
    for server in (*GrpcServer, *GrpcServer):
        config, path = rig.config("start", server)
        began_s = time.monotonic()
        process = rig.spawn(sys.executable, "-m", "extproc", "serve", "--config", path)
        wait_for(config.service.admin.port, "/readyz")
        print(f"| {server} | {time.monotonic() - began_s:.2f} |", flush=True)
        process.terminate()
        process.wait(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs")
    parser.add_argument("--requests", type=int, default=100_000, help="length of the memory run")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    options = parser.parse_args()
    parts = options.parts or PARTS
    seconds, rounds = (1.0, 3) if options.quick else (3.0, 5)
    print(f"{psutil.cpu_count()} cores, Python {sys.version.split()[0]}, one worker, Envoy with one thread")
    with (
        tempfile.TemporaryDirectory(prefix="extproc-bench-") as run_dir,
        Rig(Path(run_dir), STREAM_CHUNKS, 0.002) as rig,
    ):
        if "start" in parts:
            report_start(rig)
        hearts = [rig.bare()]
        for server in GrpcServer:
            hearts += [rig.noop(server), rig.ours(server)]
        if "whole" in parts:
            report_comparison(hearts, seconds, rounds)
        if "stream" in parts:
            report_stream(hearts, 16 if options.quick else 64)
        if "memory" in parts:
            for heart in hearts[2::2]:
                report_memory(heart, 5_000 if options.quick else options.requests)


if __name__ == "__main__":
    main()
