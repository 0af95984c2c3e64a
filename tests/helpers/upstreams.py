"""An HTTP/1.1 server for tests that says what it was sent, or misbehaves as it is told in `x-test-upstream`."""

import contextlib
import http.server
import json
import socket
import threading
import time
from typing import Any

_CHUNK_DELAY_S = 0.02


class EchoServer:
    """Listens on a free port of loopback from construction until `close`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0
        self.healthy = True
        self.health_delay_s = 0.0
        self.connections: list[socket.socket] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        owner = self

        class Handler(_Handler):
            server_name = owner.name

            def setup(self) -> None:
                super().setup()
                owner.connections.append(self.connection)

            def do_GET(self) -> None:
                if self.path.endswith(("/ready", "/health")):
                    time.sleep(owner.health_delay_s)
                    self.answer(200 if owner.healthy else 503, {})
                else:
                    self.echo()

            def do_POST(self) -> None:
                owner.requests += 1
                self.echo()

        return Handler


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are written apart
    server_name = ""

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the other side may leave whenever it likes
            super().handle()

    def echo(self) -> None:
        body = self._read_body()
        action = self.headers.get("x-test-upstream", "echo")
        if action == "stream":
            self._stream()
        elif action == "drop":
            self.close_connection = True
        elif action == "hang":
            time.sleep(3600)
        elif action == "die-mid-stream":
            self._begin_stream()
            self._chunk(b"data: 1\n\n")
            self.close_connection = True
        elif action.isdigit():
            self.answer(int(action), {"status": action})
        else:
            self.answer(200, self._seen(body))

    def answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("x-extproc-pool", "forged-by-upstream")
        self.send_header("x-ratelimit-limit-requests", "forged-by-upstream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _seen(self, body: bytes) -> dict[str, Any]:
        return {
            "server": self.server_name,
            "method": self.command,
            "path": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body": body.decode("latin-1"),
        }

    def _read_body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline().strip(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def _stream(self) -> None:
        self._begin_stream()
        for number in range(int(self.headers.get("x-test-chunks", "5"))):
            self._chunk(f"data: {number}\n\n".encode())
            time.sleep(_CHUNK_DELAY_S)
        self._chunk(b"")

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()
