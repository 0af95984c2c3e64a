"""HTTP/2 by frames (h2c, prior knowledge), for what no client library lets one do: reset one stream, send trailers."""

import contextlib
import socket
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h2.connection
import h2.errors
import h2.events

_TIMEOUT_S = 20.0
Headers = list[tuple[str, str]]


@dataclass
class Response:
    """What has come on one stream so far."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: bool = False

    @property
    def status(self) -> int:
        return int(self.headers.get(":status", "0"))


class Http2Connection:
    """One connection to 127.0.0.1:`port`. Use as a context manager."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self._h2 = h2.connection.H2Connection()
        self._responses: dict[int, Response] = {}
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def post(self, path: str, body: bytes, headers: Headers, trailers: Headers | None = None) -> int:
        """Send a request; the number of its stream. Nothing of its response is read yet."""
        stream = self._h2.get_next_available_stream_id()
        first = [(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", path)]
        self._responses[stream] = Response()
        self._h2.send_headers(stream, [*first, *headers])
        while body and not self._responses[stream].ended:
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if room:
                self._h2.send_data(stream, body[:room])
                body = body[room:]
            else:
                self._receive()
            self._flush()
        if not self._responses[stream].ended:
            self._end(stream, trailers)
        return stream

    def _end(self, stream: int, trailers: Headers | None) -> None:
        if trailers is None:
            self._h2.end_stream(stream)
        else:
            self._h2.send_headers(stream, trailers, end_stream=True)
        self._flush()

    def reset(self, stream: int) -> None:
        self._h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self._flush()

    def read_until(self, stream: int, text: bytes | None = None, times: int = 1) -> Response:
        """Read until `text` has come so many times on this stream, or it has ended."""
        response = self._responses[stream]
        while not (response.ended or (text is not None and response.body.count(text) >= times)):
            if not self._receive():
                break
        return response

    def _receive(self) -> bool:
        received = self._socket.recv(65536)
        for event in self._h2.receive_data(received):
            self._take(event)
        self._flush()
        return bool(received)

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self._of(event.stream_id).headers = {
                str(name, "latin-1"): str(value, "latin-1") for name, value in event.headers or ()
            }
        elif isinstance(event, h2.events.DataReceived):
            self._of(event.stream_id).body += event.data or b""
            with contextlib.suppress(h2.exceptions.ProtocolError):  # of a stream that was reset
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        elif isinstance(event, h2.events.StreamEnded):
            self._of(event.stream_id).ended = True
        elif isinstance(event, h2.events.StreamReset):
            self._of(event.stream_id).ended = self._of(event.stream_id).reset = True

    def _of(self, stream: int | None) -> Response:
        return self._responses[stream or 0]

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())
