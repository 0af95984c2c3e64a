"""A closed-loop HTTP/1.1 load generator, as wrk is one: each connection sends, waits for the whole answer, sends again.

Run as a program of its own, so that its CPU is not the measured one's: `load.py PORT CONNECTIONS SECONDS < request`
reads the request's bytes from standard input and prints one JSON object. Loopback only.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Result:
    latencies_s: list[float] = field(default_factory=list)
    errors: int = 0


class Connection(asyncio.Protocol):
    """One connection of the loop. Knows just enough HTTP to find the end of an answer."""

    def __init__(self, request: bytes, result: Result, until_s: float) -> None:
        self._request, self._result, self._until_s = request, result, until_s
        self._received = b""
        self._sent_s = 0.0
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._received = b""
        self._sent_s = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not _complete(self._received):
            return
        now_s = time.perf_counter()
        if self._received.startswith(b"HTTP/1.1 200"):
            self._result.latencies_s.append(now_s - self._sent_s)
        else:
            self._result.errors += 1
        if now_s < self._until_s:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._result.errors += exc is not None
        if not self.closed.done():
            self.closed.set_result(None)


def _complete(received: bytes) -> bool:
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    head = head.lower()
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    return len(body) >= int(length or 0)


async def run(port: int, connections: int, seconds: float, request: bytes) -> dict[str, float]:
    result, until_s = Result(), time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: Connection(request, result, until_s), "127.0.0.1", port)
        for _ in range(connections)
    ]
    began_s = time.perf_counter()
    await asyncio.wait([protocol.closed for _, protocol in opened], timeout=seconds + 10)
    elapsed_s = time.perf_counter() - began_s
    ordered = sorted(result.latencies_s) or [0.0]
    return {
        "requests": len(result.latencies_s),
        "errors": result.errors,
        "per_s": len(result.latencies_s) / elapsed_s,
        "p50_ms": ordered[len(ordered) // 2] * 1e3,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3,
    }


if __name__ == "__main__":
    port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    print(json.dumps(asyncio.run(run(port, connections, seconds, sys.stdin.buffer.read()))))
