"""What it costs that another pool answers: the same upstream asked as a pool of its own, and as the fallback of one
that is down, interleaved. `python -m tests.benchmarks.fallback [ROUNDS] [SECONDS]`
"""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import defaultdict
from typing import Any

from extproc.config.model import GrpcServer
from tests.helpers.ports import free_base
from tests.helpers.services import KEY, ServedGateway, Upstreams, served

HERE = pathlib.Path(__file__).parent
CONNECTIONS = (1, 32)
_MODEL = "operations: [chat], context_window: 32768, tokenizer: {type: tiktoken, encoding: cl100k_base}"
MORE = {
    "models": f"own: {{pool: own, {_MODEL}}}\nfailing: {{pool: failing, {_MODEL}}}",
    "pools": textwrap.dedent("""
        own: {dialect: openai, model: x, clusters: {a: {endpoints: ["127.0.0.1:%d"]}}}
        failing:
          dialect: openai
          model: x
          clusters: {a: {endpoints: ["127.0.0.1:9"]}}
          fallback: [{pool: own}]
        """),
}


def measure(gateway: ServedGateway, model: str, connections: int, seconds: float) -> dict[str, float]:
    """Latencies, throughput, and the worker's CPU per request."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "word " * 400}]})
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    )
    (worker,) = gateway.workers()
    before = worker.cpu_times()
    command = (sys.executable, str(HERE / "load.py"), str(gateway.port), str(connections), str(seconds))
    result: dict[str, float] = json.loads(subprocess.check_output(command, input=request.encode()))
    after = worker.cpu_times()
    assert result["errors"] == 0, result
    cpu_s = after.user + after.system - before.user - before.system
    return {**result, "cpu_us": cpu_s / result["requests"] * 1e6}


def main(rounds: int, seconds: float) -> None:
    port = free_base()
    upstream = subprocess.Popen((sys.executable, str(HERE / "upstream.py"), str(port), "100", "0.001"))
    more = {**MORE, "pools": MORE["pools"] % port}
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    try:
        for server in GrpcServer:
            with (
                tempfile.TemporaryDirectory() as directory,
                served(pathlib.Path(directory), Upstreams(), server=server, more=more) as gateway,
            ):
                time.sleep(3)  # until the health checks have failed
                for _ in range(rounds):
                    for connections in CONNECTIONS:
                        for model in ("own", "failing"):
                            found[server, model, connections].append(measure(gateway, model, connections, seconds))
    finally:
        upstream.kill()
    for (used, model, connections), results in found.items():
        medians = {name: statistics.median(result[name] for result in results) for name in results[0]}
        figures = " ".join(f"{name}={medians[name]:.2f}" for name in ("p50_ms", "p99_ms", "per_s", "cpu_us"))
        print(f"{used:8} {model:8} {connections:3} {figures}")


if __name__ == "__main__":
    rounds, seconds = sys.argv[1:] or ("3", "4")
    main(int(rounds), float(seconds))
