"""HTTP by hand, for what no client library sends."""

import contextlib
import json
import socket
from typing import Any


def exchange(port: int, request: bytes, timeout_s: float = 10.0) -> bytes:
    """Everything that is answered before the connection ends, or a whole response if it stays open."""
    answer = b""
    with contextlib.closing(socket.create_connection(("127.0.0.1", port))) as connection:
        connection.settimeout(timeout_s)
        connection.sendall(request)
        while not _is_complete(answer) and (received := connection.recv(65536)):
            answer += received
    return answer


def body_of(answer: bytes) -> Any:
    """The JSON in the body of a response, whatever its framing."""
    text = answer.split(b"\r\n\r\n", 1)[1]
    return json.loads(text[text.index(b"{") : text.rindex(b"}") + 1])


def _is_complete(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length: "):
            return bool(separator) and len(body) >= int(line.split()[1])
    return False
