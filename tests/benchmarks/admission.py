"""What admission costs while there is room, and what it saves real-time requests from while there is none.

The model server is simulated: it works on 16 requests at a time for 100 ms each, and the others wait for it in the
order of their coming. Starts a Redis of its own. `python tests/benchmarks/admission.py`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from extproc import gateway_file
from extproc.admission import Line, Priority, Ticket
from extproc.clock import Clock
from extproc.config.model import GatewayConfig, GrpcServer
from extproc.limits import Lost
from extproc.stores.admissions import SharedAdmissions
from tests.benchmarks.rig import HERE, Heart, Rig, chat_request, load_run
from tests.benchmarks.run import compare
from tests.benchmarks.upstream import Upstream
from tests.helpers.redis import RedisServer

SLOTS, WORK_S = 16, 0.1
FLOOD = 48
LIMIT = "policies:\n  limit: {mode: 'off'}\n"
ADMIT = """  admit:
    pools: {bench: {requests: 16, queue_length: 64}}
    classes: {P2: {share: 0.75}, P3: {share: 0.75}}
"""


class Busy(Upstream):
    """A model server with so many slots."""

    free: asyncio.Semaphore

    async def _stream(self) -> None:
        async with self.free:
            await asyncio.sleep(WORK_S)
            await super()._stream()


async def serve(port: int) -> None:
    Busy.free, Busy.chunks, Busy.gap_s = asyncio.Semaphore(SLOTS), 2, 0.0
    server = await asyncio.get_running_loop().create_server(Busy, "127.0.0.1", port)
    await server.serve_forever()


class AdmittedRig(Rig):
    """Services with a Redis, that differ in their policies."""

    def __init__(self, run_dir: Path, *, busy: bool) -> None:
        super().__init__(run_dir)
        self._busy = busy
        self._name, self._policies = "", ""

    def __enter__(self) -> AdmittedRig:
        if not self._busy:
            super().__enter__()
        else:
            self.spawn(sys.executable, Path(__file__), "--upstream", self._upstream)
        return self

    def config(self, heart: str, server: GrpcServer = GrpcServer.GRPCIO, more: str = "") -> tuple[GatewayConfig, Path]:
        _, path = super().config(self._name, server, more)
        path.write_text(path.read_text().replace("no-redis.sock", "redis.sock") + self._policies)
        return gateway_file.load(path), path

    def service(self, name: str, policies: str) -> Heart:
        self._name, self._policies = name, policies
        return replace(self.ours(GrpcServer.GRPCIO), name=name)


def asked(priority: str) -> bytes:
    return chat_request(500, stream=True).replace(
        b"\r\n\r\n", f"\r\nx-extproc-priority: {priority}\r\n\r\n".encode(), 1
    )


def flooded(heart: Heart, connections: int, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """P0 on so many connections beside a flood of P3; what each of them saw."""
    command = [sys.executable, str(HERE / "load.py"), str(heart.port), str(FLOOD), str(seconds + 2)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as flood:
        assert flood.stdin is not None
        assert flood.stdout is not None
        flood.stdin.write(asked("P3"))
        flood.stdin.close()
        time.sleep(1.0)
        urgent = load_run(heart.port, connections, seconds, asked("P0"))
        return urgent, json.loads(flood.stdout.read())


def through_a_flood(directory: Path, seconds: float, rounds: int) -> None:
    with AdmittedRig(directory, busy=True) as rig:
        hearts = [rig.service("off", LIMIT), rig.service("on", LIMIT + ADMIT)]
        for connections in (4, 8):
            seen: dict[str, list[dict[str, float]]] = {}
            for _ in range(rounds):
                for heart in hearts:
                    idle = load_run(heart.port, connections, seconds, asked("P0"))
                    urgent, flood = flooded(heart, connections, seconds)
                    for name, result in (("idle", idle), ("flood", urgent), ("P3 itself", flood)):
                        seen.setdefault(f"{heart.name}, {name}", []).append(result)
            report(connections, seen)


def report(connections: int, seen: dict[str, list[dict[str, float]]]) -> None:
    middle = {
        name: {key: statistics.median(one[key] for one in runs) for key in ("p50_ms", "p99_ms", "per_s", "errors")}
        for name, runs in seen.items()
    }
    print(f"\nP0 on {connections} connections, P3 on {FLOOD}; {SLOTS} slots of {WORK_S * 1e3:.0f} ms")
    for name, values in middle.items():
        print(f"  admit {name}: " + ", ".join(f"{key} {value:.1f}" for key, value in values.items()))
    for admit in ("off", "on"):
        ratio = middle[f"{admit}, flood"]["p99_ms"] / middle[f"{admit}, idle"]["p99_ms"]
        print(f"  admit {admit}: P0's p99 in the flood is {ratio:.2f} times that of idle", flush=True)


def with_room(directory: Path, seconds: float, rounds: int) -> None:
    """The same pipeline with a line and without, in turns, so that a slow minute of the machine hits both."""
    roomy = LIMIT + ADMIT.replace("requests: 16", "requests: 100000")
    with AdmittedRig(directory, busy=False) as rig:
        found = compare([rig.service("without", LIMIT), rig.service("with", roomy)], 1, seconds, rounds)
    with_ms, without_ms = found["with"]["p50_ms"], found["without"]["p50_ms"]
    print(f"through Envoy, one connection: p50 {with_ms:.2f} ms with a line, {without_ms:.2f} ms without", flush=True)


async def alone(server: RedisServer) -> None:
    line = Line("bench", (100_000,) * 4, (10**9,) * 4, (64, 16, 4, 1), 256, 10_000)
    shared = SharedAdmissions(server.url, 5.0, Clock(), lambda _: None, lambda *_: None)
    took = []
    for number in range(3000):
        began_s = time.perf_counter()
        await shared.enter(line, Ticket(f"t{number}", Priority(number % 4), 100, "bench", 1000), Lost.CLOSED)
        took.append((time.perf_counter() - began_s) * 1e3)
        await shared.leave(f"t{number}")
    await shared.close()
    print(
        f"enter: p50 {statistics.median(took):.2f} ms, p99 {statistics.quantiles(took, n=100)[98]:.2f} ms", flush=True
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.upstream:
        asyncio.run(serve(options.upstream))
    with tempfile.TemporaryDirectory() as folder:
        running = RedisServer(Path(folder))
        try:
            asyncio.run(alone(running))
            with_room(Path(folder), options.seconds / 2, options.rounds)
            through_a_flood(Path(folder), options.seconds, options.rounds)
        finally:
            running.close()
