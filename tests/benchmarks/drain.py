"""Rolling restarts of the processor under load: how many requests fail, and how long a cold start takes.

One Envoy, two replicas of `extproc serve`, chats in both forms on as many connections as asked for. A rolling restart
ends each replica in turn with SIGTERM, starts it again once it has gone, and goes on when Envoy has it back.
`python tests/benchmarks/drain.py [--restarts 20] [--connections 16] [--server grpcio]`
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extproc.config import load
from extproc.config.model import GatewayConfig, GrpcServer
from extproc.policies import pipeline
from tests.benchmarks.rig import Rig, chat_request, wait_for

_HEALTHY = 3
ROOT = Path(__file__).parents[2]


@dataclass
class Seen:
    """What the clients saw."""

    whole: int = 0
    streamed: int = 0
    failures: Counter[str] = field(default_factory=Counter)


class Replica:
    """One `extproc serve`, with the address of one of the workers that Envoy knows."""

    def __init__(self, config: Path, index: int, run_dir: Path) -> None:
        self._log = (run_dir / f"replica-{index}.log").open("ab")
        self.config_path = run_dir / f"replica-{index}.yaml"
        text = config.read_text().replace(".sock", f".{index}.sock", 1).replace("  workers: 2\n", "")
        admin = load(config, pipeline.SETTINGS).service.admin.port
        self.admin = admin + 1 + index
        self.config_path.write_text(text.replace(f"127.0.0.1:{admin}", f"127.0.0.1:{self.admin}"))
        self.drains_s: list[float] = []
        self.starts_s: list[float] = []

    def start(self) -> None:
        began_s = time.monotonic()
        command = [sys.executable, "-m", "extproc", "serve", "--config", str(self.config_path)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environment)
        wait_for(self.admin, "/readyz")
        self.starts_s.append(time.monotonic() - began_s)

    def end(self) -> None:
        began_s = time.monotonic()
        self._process.terminate()
        self._process.wait(60)
        self.drains_s.append(time.monotonic() - began_s)


async def client(port: int, number: int, seen: Seen, stop: asyncio.Event) -> None:
    """Chat after chat on one connection, every second one streamed; a new connection when it is closed."""
    requests = (chat_request(2000, stream=False), chat_request(2000, stream=True))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    turn = number
    while not stop.is_set():
        turn += 1
        stream = bool(turn % 2)
        try:
            writer.write(requests[stream])
            status, headers, body = await asyncio.wait_for(_answer(reader), 30)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            seen.failures[type(error).__name__] += 1
            status, headers, body = 0, "", b""
        if status == 200 and (not stream or b"data: [DONE]" in body):
            seen.streamed += stream
            seen.whole += not stream
        elif status:
            seen.failures[f"{status}, {'streamed' if stream else 'whole'}: {body[:120]!r}"] += 1
        if not status or "connection: close" in headers:
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    body = b""
    if length := re.search(r"content-length: (\d+)", head):
        body = await reader.readexactly(int(length[1]))
    else:
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size + 2)
        await reader.readline()
    return int(head.split()[1]), head, body


def wait_for_envoy(config: GatewayConfig) -> None:
    """Until Envoy finds both replicas, and the upstream, healthy."""
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{config.gateway.admin.port}/clusters", timeout=5) as page:
            if page.read().decode().count("::health_flags::healthy") == _HEALTHY:
                return
        time.sleep(0.05)


async def measure(arguments: argparse.Namespace, run_dir: Path) -> dict[str, Any]:
    with Rig(run_dir, chunks=40, gap_s=0.005) as rig:
        _, path = rig.config("drain", arguments.server)
        text = path.read_text().replace(
            "notice_s: 0\n  drain_timeout_s: 1\n",
            f"notice_s: {arguments.notice_s}\n  drain_timeout_s: 30\n  workers: 2\n",
        )
        path.write_text(text)
        config = load(path, pipeline.SETTINGS)
        replicas = [Replica(path, index, run_dir) for index in range(2)]
        for replica in replicas:
            replica.start()
        rig.envoy(config)
        stop, seen = asyncio.Event(), Seen()
        port = config.gateway.listen.port
        clients = [asyncio.create_task(client(port, number, seen, stop)) for number in range(arguments.connections)]
        await asyncio.sleep(1)
        began_s = time.monotonic()
        for _ in range(arguments.restarts):
            for replica in replicas:
                await asyncio.to_thread(replica.end)
                await asyncio.to_thread(replica.start)
                await asyncio.to_thread(wait_for_envoy, config)
        took_s = time.monotonic() - began_s
        stop.set()
        await asyncio.gather(*clients)
        for replica in replicas:
            replica.end()
    starts = [value for replica in replicas for value in replica.starts_s]
    drains = [value for replica in replicas for value in replica.drains_s]
    return {
        "rolling restarts": arguments.restarts,
        "seconds": round(took_s),
        "whole answers": seen.whole,
        "streams": seen.streamed,
        "failures": dict(seen.failures),
        "drain s, median and longest": (round(statistics.median(drains), 2), round(max(drains), 2)),
        "start to ready s, median and longest": (round(statistics.median(starts), 2), round(max(starts), 2)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--notice-s", type=float, default=2.0)
    parser.add_argument("--server", type=GrpcServer, default=GrpcServer.GRPCIO, choices=list(GrpcServer))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="extproc-drain-") as run_dir:
        for name, value in asyncio.run(measure(arguments, Path(run_dir))).items():
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
