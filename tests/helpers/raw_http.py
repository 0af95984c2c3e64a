"""A client's socket, for what no client library would do: lie, dawdle, leave, pipeline."""

import contextlib
import json
import re
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

_TIMEOUT_S = 20.0
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")


@dataclass(frozen=True)
class Answer:
    """A response as it came; `whole` is False when the connection ended before it did."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    path: str, body: bytes | None = None, *, method: str = "POST", key: str | None = None, headers: str = ""
) -> bytes:
    """An HTTP/1.1 request; `headers` are further lines. Without a body there is no content-length."""
    lines = [f"{method} {path} HTTP/1.1", "host: test", *headers.splitlines()]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    if body is not None and "transfer-encoding" not in headers and "content-length" not in headers:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chunked(*chunks: bytes, trailers: str = "") -> bytes:
    """A body in chunks, with its end."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    lines = [*trailers.splitlines(), "", ""]
    return body + b"0\r\n" + "\r\n".join(lines).encode("latin-1")


class Connection:
    """One connection to 127.0.0.1:`port`. Use as a context manager."""

    def __init__(self, port: int, receive_buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(_TIMEOUT_S)
        self.socket.connect(("127.0.0.1", port))
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_what_is_taken(self, data: bytes) -> None:
        """Send, and put up with a server that stops reading and hangs up, as one may after an early refusal."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def peek(self) -> bool:
        """Whether something has come, or the other side has left. Raises TimeoutError."""
        with contextlib.suppress(ConnectionError):
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        return True

    def abort(self) -> None:
        """Leave with a reset rather than an orderly end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read_until(self, text: bytes) -> bytes:
        """Everything up to `text`; b"" if the connection ended before."""
        while text not in self._unread:
            if not self._receive():
                return b""
        end = self._unread.index(text) + len(text)
        taken, self._unread = self._unread[:end], self._unread[end:]
        return taken

    def answer(self, *, head_only: bool = False) -> Answer:
        """The next response, interim ones left out; status 0 if there was none."""
        head = self.read_until(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 1"):
            head = self.read_until(b"\r\n\r\n")
        if not head:
            return Answer(0, {}, b"", whole=False)
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body, whole = (b"", True) if head_only else self._body(head)
        return Answer(int(first.split()[1]), headers, body, whole)

    def _body(self, head: bytes) -> tuple[bytes, bool]:
        if length := _LENGTH.search(head):
            return self._exactly(int(length[1]))
        if b"\r\ntransfer-encoding: chunked" not in head:
            return b"", True
        body = b""
        while size := self.read_until(b"\r\n"):
            chunk, whole = self._exactly(int(size, 16) + 2)
            if size == b"0\r\n":
                return body, True
            body += chunk[:-2] if whole else chunk
        return body, False

    def _exactly(self, size: int) -> tuple[bytes, bool]:
        while len(self._unread) < size and self._receive():
            pass
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken, len(taken) == size

    def _receive(self) -> bool:
        try:
            received = self.socket.recv(65536)
        except ConnectionError:
            return False
        self._unread += received
        return bool(received)


def exchange(port: int, data: bytes) -> Answer:
    """Send one request on a connection of its own and read its response."""
    with Connection(port) as connection:
        connection.send_what_is_taken(data)
        return connection.answer()
