"""Our HTTP/2 frame by frame: with the h2 library at the other end, and with peers that break the protocol."""

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from extproc.edge import frames
from extproc.edge.calls import WINDOW_BYTES
from extproc.edge.frames import ErrorCode
from extproc.edge.http2 import MAX_BLOCK_BYTES
from tests.helpers.calls import Methods, serving, until

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/test/Echo"), (":authority", "x"), ("te", "trailers")]


def message(data: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(data)) + data


class Peer:
    """A client that does what it is told, and no more: it opens no window by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.events: list[h2.events.Event] = []

    async def greet(self, initial_window: int = 65_535) -> None:
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: initial_window})
        await self.receive(h2.events.SettingsAcknowledged)
        await self.receive(h2.events.SettingsAcknowledged)

    def open(self, path: str = "/test/Echo") -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [(n, path if n == ":path" else v) for n, v in REQUEST])
        return stream

    async def receive(self, kind: type[h2.events.Event]) -> h2.events.Event:
        """Until an event of this kind has come; what came before it is kept as well."""
        while True:
            for event in self.events:
                if isinstance(event, kind):
                    self.events.remove(event)
                    return event
            await self.exchange()

    async def exchange(self) -> None:
        self._writer.write(self.h2.data_to_send())
        data = await asyncio.wait_for(self._reader.read(65536), 5)
        assert data, "the connection was closed"
        self.events += self.h2.receive_data(data)
        self._writer.write(self.h2.data_to_send())

    def close(self) -> None:
        self._writer.close()

    def data_of(self, stream: int) -> bytes:
        return b"".join(e.data for e in self.events if isinstance(e, h2.events.DataReceived) and e.stream_id == stream)


@pytest.fixture
async def methods(tmp_path: Path) -> AsyncIterator[Methods]:
    async with serving(tmp_path / "s") as running:
        yield running


@pytest.fixture
async def peer(methods: Methods, tmp_path: Path) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
    peer = Peer(reader, writer)
    yield peer
    peer.close()


async def test_headers_messages_and_trailers(peer: Peer) -> None:
    await peer.greet()
    stream = peer.open()
    peer.h2.send_data(stream, message(b"a") + message(b"b"), end_stream=True, pad_length=7)
    headers = await peer.receive(h2.events.ResponseReceived)
    trailers = await peer.receive(h2.events.TrailersReceived)
    assert dict(headers.headers) == {":status": "200", "content-type": "application/grpc"}
    assert dict(trailers.headers) == {"grpc-status": "0"}
    assert peer.data_of(stream) == message(b"a") + message(b"b")


async def test_no_byte_beyond_the_peers_window(peer: Peer) -> None:
    await peer.greet(initial_window=10)
    stream = peer.open()
    peer.h2.send_data(stream, message(b"x" * 20), end_stream=True)
    await peer.receive(h2.events.ResponseReceived)
    while len(peer.data_of(stream)) < 10:
        await peer.exchange()
    peer.h2.ping(b"12345678")
    await peer.receive(h2.events.PingAckReceived)
    assert len(peer.data_of(stream)) == 10
    peer.h2.increment_flow_control_window(15, stream)
    await peer.receive(h2.events.TrailersReceived)
    assert peer.data_of(stream) == message(b"x" * 20)


async def test_a_window_that_new_settings_open(peer: Peer) -> None:
    await peer.greet(initial_window=0)
    stream = peer.open()
    peer.h2.send_data(stream, message(b"x" * 20), end_stream=True)
    await peer.receive(h2.events.ResponseReceived)
    peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    await peer.receive(h2.events.TrailersReceived)
    assert peer.data_of(stream) == message(b"x" * 20)


async def test_trailers_of_the_client_end_its_side(peer: Peer) -> None:
    await peer.greet()
    stream = peer.open()
    peer.h2.send_data(stream, message(b"a"))
    peer.h2.send_headers(stream, [("x-checksum", "1")], end_stream=True)
    trailers = await peer.receive(h2.events.TrailersReceived)
    assert dict(trailers.headers) == {"grpc-status": "0"}


async def test_a_refusal_before_the_peers_end_resets_without_an_error(peer: Peer) -> None:
    await peer.greet()
    peer.open("/test/None")
    headers = await peer.receive(h2.events.ResponseReceived)
    assert dict(headers.headers)["grpc-status"] == "12"
    reset = await peer.receive(h2.events.StreamReset)
    assert reset.error_code == ErrorCode.NO_ERROR


async def test_a_reset_call_is_cancelled(peer: Peer, methods: Methods) -> None:
    await peer.greet()
    stream = peer.open("/test/Hang")
    peer.h2.ping(b"12345678")
    await peer.receive(h2.events.PingAckReceived)
    await until(lambda: methods.running == 1)
    peer.h2.reset_stream(stream)
    peer.h2.ping(b"12345678")
    await peer.receive(h2.events.PingAckReceived)
    await until(lambda: methods.cancelled == 1)


async def test_the_end_of_a_connection_cancels_its_calls(peer: Peer, methods: Methods) -> None:
    await peer.greet()
    for _ in range(3):
        peer.open("/test/Hang")
    peer.h2.ping(b"12345678")
    await peer.receive(h2.events.PingAckReceived)
    await until(lambda: methods.running == 3)
    peer.close()
    await until(lambda: methods.cancelled == 3 and not methods.connections)


async def test_a_call_reset_before_it_began_leaves_nothing(peer: Peer, methods: Methods) -> None:
    await peer.greet()
    peer.h2.reset_stream(peer.open("/test/Hang"))
    peer.h2.ping(b"12345678")
    await peer.receive(h2.events.PingAckReceived)
    (connection,) = methods.connections
    await until(lambda: not connection._tasks)
    assert not connection._calls
    assert methods.cancelled == methods.running == 0


GREETING = frames.PREFACE + frames.settings({})
HEADERS = b"\x83\x86" + frames._literal(b":path", b"/test/Hang")  # POST, http
OPEN = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, HEADERS)


def window(stream: int, increment: int) -> bytes:
    return frames.window_update(stream, increment)


BREACHES = {
    "no preface": (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", ErrorCode.PROTOCOL_ERROR),
    "frame too large": (GREETING + b"\x00\x40\x01" + bytes(6), ErrorCode.FRAME_SIZE_ERROR),
    "data on no stream": (GREETING + frames.frame(frames.DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "data on an idle stream": (GREETING + frames.frame(frames.DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
    "data after the end": (
        GREETING + frames.frame(frames.HEADERS, 5, 1, HEADERS) + frames.frame(frames.DATA, 0, 1, b"x"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "more data than the window": (
        GREETING + OPEN + frames.frame(frames.DATA, 0, 1, bytes(16384)) * (WINDOW_BYTES // 16384 + 1),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "padding longer than the frame": (
        GREETING + OPEN + frames.frame(frames.DATA, frames.PADDED, 1, b"\x05xx"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "padding without a length": (
        GREETING + OPEN + frames.frame(frames.DATA, frames.PADDED, 1, b""),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "headers on an even stream": (GREETING + frames.frame(frames.HEADERS, 4, 2, HEADERS), ErrorCode.PROTOCOL_ERROR),
    "headers that are no HPACK": (GREETING + frames.frame(frames.HEADERS, 4, 1, b"\xff" * 9), 9),
    "headers that are not UTF-8": (
        GREETING + frames.frame(frames.HEADERS, 4, 1, b"\x00\x01\xff") + frames.frame(frames.DATA, 0, 0, b""),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "a frame between header frames": (
        GREETING + frames.frame(frames.HEADERS, 0, 1, HEADERS) + frames.frame(frames.PING, 0, 0, bytes(8)),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a continuation of nothing": (GREETING + frames.frame(frames.CONTINUATION, 4, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "headers without an end": (
        GREETING
        + frames.frame(frames.HEADERS, 0, 1, b"")
        + frames.frame(frames.CONTINUATION, 0, 1, bytes(16384)) * (MAX_BLOCK_BYTES // 16384 + 1),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a reset of an idle stream": (GREETING + frames.reset(1, ErrorCode.NO_ERROR), ErrorCode.PROTOCOL_ERROR),
    "a short reset": (GREETING + OPEN + frames.frame(frames.RST_STREAM, 0, 1, b""), ErrorCode.FRAME_SIZE_ERROR),
    "settings on a stream": (GREETING + frames.frame(frames.SETTINGS, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "half a setting": (GREETING + frames.frame(frames.SETTINGS, 0, 0, b"abc"), ErrorCode.FRAME_SIZE_ERROR),
    "an impossible initial window": (
        GREETING + frames.frame(frames.SETTINGS, 0, 0, b"\x00\x04\xff\xff\xff\xff"),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "a window opened by nothing": (GREETING + window(0, 0), ErrorCode.PROTOCOL_ERROR),
    "a window beyond the largest": (GREETING + window(0, frames.MAX_WINDOW), ErrorCode.FLOW_CONTROL_ERROR),
    "a call's window beyond the largest": (
        GREETING + OPEN + window(1, frames.MAX_WINDOW),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "a ping on a stream": (GREETING + frames.frame(frames.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "a short ping": (GREETING + frames.frame(frames.PING, 0, 0, b""), ErrorCode.FRAME_SIZE_ERROR),
    "a promise": (GREETING + frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("breach", BREACHES)
async def test_a_breach_of_the_protocol_ends_the_connection(methods: Methods, tmp_path: Path, breach: str) -> None:
    sent, code = BREACHES[breach]
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
    writer.write(sent)
    received = await asyncio.wait_for(reader.read(), 5)
    kind, payload = last_frame(received)
    assert kind == frames.GOAWAY
    assert struct.unpack(">I", payload[4:8])[0] == code
    writer.close()
    await until(lambda: not methods.connections and not methods.running)


def last_frame(data: bytes) -> tuple[int, bytes]:
    at = 0
    while True:
        length, kind, _, _ = frames.parse_header(data, at)
        end = at + frames.HEADER_BYTES + length
        if end == len(data):
            return kind, data[at + frames.HEADER_BYTES : end]
        at = end
