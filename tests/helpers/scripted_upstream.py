"""An upstream that does whatever a test says: each request is handed to the script in force.

A script is a function of the connection; the ones below answer in OpenAI's words, with bytes as they are given, or
badly.
"""

import contextlib
import http.server
import json
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.helpers.processes import wait_until

_HANG_S = 60.0
_DRIP_S = 0.01
_STALL_S = 0.3


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Call(http.server.BaseHTTPRequestHandler):
    """One request in the hands of a script."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: "ScriptedUpstream"
    seen: Seen

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the other side may leave whenever it likes
            super().handle()

    def do_GET(self) -> None:
        if self.headers.get("user-agent") == "Envoy/HC":
            self.answer(200 if self.owner.healthy else 503, b"")
        else:
            self.do_POST()

    def do_POST(self) -> None:
        headers = tuple((name.lower(), value) for name, value in self.headers.items())
        self.seen = Seen(self.command, self.path, headers, self._read_body())
        self.owner.seen.append(self.seen)
        try:
            self.owner.script(self)
        except ConnectionError:  # it hung up while something was written
            self.owner.left += 1
            self.close_connection = True

    do_PUT = do_HEAD = do_DELETE = do_OPTIONS = do_POST  # noqa: N815 (the base class's way of naming)

    def answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.start(status, content_type, f"content-length: {len(body)}")
        self.write(body)

    def start(self, status: int, content_type: str, framing: str = "transfer-encoding: chunked") -> None:
        self.write(f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n".encode())

    def chunk(self, data: bytes) -> None:
        """An empty one is the end."""
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.owner.written_bytes += len(data)

    def hang_up(self) -> None:
        """End the connection with a reset, as a killed process does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def wait_until_left(self) -> None:
        """Do nothing until the gateway hangs up, and note that it did."""
        if self.is_left(_HANG_S):
            self.owner.left += 1
        self.close_connection = True

    def is_left(self, timeout_s: float) -> bool:
        """Whether the gateway hangs up within that time."""
        poll = select.poll()  # `select` takes no descriptor above 1023
        poll.register(self.connection, select.POLLIN)
        try:
            return bool(poll.poll(timeout_s * 1000)) and not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True

    def _read_body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body


Script = Callable[[Call], None]


class ScriptedUpstream:
    """Listens on a free port of loopback from construction until `close`."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.script: Script = chat
        self.healthy = True
        self.seen: list[Seen] = []
        self.left = 0
        self.written_bytes = 0
        call = type("Call", (Call,), {"owner": self})
        self._server = _Server(("127.0.0.1", port), call)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    def was_left(self, before: int = 0) -> bool:
        """Whether the gateway gave up a call that waited for that."""
        return wait_until(lambda: self.left > before)

    def stalls(self) -> bool:
        """Whether it has begun to write and can't go on."""
        before = self.written_bytes
        time.sleep(_STALL_S)
        return 0 < before == self.written_bytes

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def content(text: str, finish_reason: str | None = None) -> bytes:
    """One event of a streamed chat."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "x", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def whole(text: str = "hello there") -> bytes:
    """A whole chat answer."""
    message = {"role": "assistant", "content": text}
    answer = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "x",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    }
    return json.dumps(answer).encode()


def chat(call: Call) -> None:
    """A good answer: whole or streamed, as asked."""
    if b'"stream":true' in call.seen.body:
        stream(content("hello"), content(" there", "stop"), b"data: [DONE]\n\n")(call)
    else:
        call.answer(200, whole())


def answers(status: int, body: bytes, content_type: str = "application/json") -> Script:
    return lambda call: call.answer(status, body, content_type)


def stream(*events: bytes, then: Callable[[Call], None] = lambda call: call.chunk(b"")) -> Script:
    """Events as they are given, then the end, or something else."""

    def script(call: Call) -> None:
        call.start(200, "text/event-stream")
        for event in events:
            call.chunk(event)
        then(call)

    return script


def drip(call: Call) -> None:
    """One word after the other until the gateway gives up."""
    call.start(200, "text/event-stream")
    for _ in range(round(_HANG_S / _DRIP_S)):
        if call.is_left(_DRIP_S):
            call.owner.left += 1
            break
        call.chunk(content("word "))
    call.close_connection = True


def hang(call: Call) -> None:
    """Say nothing until the gateway gives up."""
    call.wait_until_left()


def hang_up(call: Call) -> None:
    call.hang_up()
