"""One HTTP/2 connection from Envoy (RFC 9113), the server's side, as far as gRPC needs it.

Why beside grpcio's server: that spends some five times as much CPU on an exchange (docs/performance.md). It moves each
message through a completion queue, a second thread and a wake-up of the event loop; here all messages that came
together are taken in one turn of the loop, and all replies of a turn leave together.

Theory of operation. Frames are taken as they come; only a frame that is not whole yet is kept. A stream's headers
begin a call, which runs in its own task; a reset cancels that task. What calls send is gathered and written once per
turn of the event loop. Memory is bounded: calls by MAX_STREAMS, each call's unread bytes by its window (`calls`),
header blocks by MAX_BLOCK_BYTES, and a peer that doesn't read what we write isn't read from either. Any breach of the
protocol ends the connection.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import cast

from hpack import Decoder, HPACKError
from msgspec import Struct

from extproc.edge.calls import WINDOW_BYTES, Call
from extproc.edge.fields import split
from extproc.edge.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER_BYTES,
    HEADERS,
    MAX_WINDOW,
    PADDED,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionBroken,
    ErrorCode,
    Setting,
    frame,
    goaway,
    parse_header,
    parse_settings,
    reset,
    settings,
    uint32,
    unpadded,
    window_update,
)
from extproc.edge.stream import MAX_STREAMS, CallFailed, Handler, Status

MAX_BLOCK_BYTES = 1 << 16

_INITIAL_WINDOW_BYTES = 65_535
_KNOWN_BLOCKS = 256
_DRAINING = b"draining"
_TRACEPARENT = b"traceparent"
_log = logging.getLogger(__name__)


class _Asked(Struct, frozen=True):
    """What a header block says that matters here."""

    path: str
    traceparent: str


class Connection(asyncio.Protocol):
    """`handler_of` gives the handler of a path, or None. `closed` is told when all is over, the last call included."""

    def __init__(self, handler_of: Callable[[str], Handler | None], closed: Callable[[Connection], None]) -> None:
        self._handler_of = handler_of
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._received = b""
        self._greeted = False
        self._out: list[bytes] = []
        self._waiting: set[asyncio.Future[None]] = set()
        self._calls: dict[int, Call] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._last_call = 0
        self._leaving = False
        self._lost = False
        self._credit = MAX_WINDOW
        self._call_window = _INITIAL_WINDOW_BYTES
        self._decoder = Decoder(MAX_BLOCK_BYTES)
        self._stateless = False
        self._asked: dict[bytes, _Asked] = {}
        self._known: dict[bytes, tuple[tuple[bytes | str, bytes | str], ...]] = {}
        self._block: tuple[int, int, bytes] | None = None
        self._on_frame = {
            DATA: self._on_data,
            HEADERS: self._on_headers,
            RST_STREAM: self._on_reset,
            SETTINGS: self._on_settings,
            PUSH_PROMISE: self._on_promise,
            PING: self._on_ping,
            WINDOW_UPDATE: self._on_window,
            CONTINUATION: self._on_continuation,
        }
        self.window = _INITIAL_WINDOW_BYTES
        self.congested = False

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        ours = {
            # Without a table equal header blocks mean the same, and need not be decoded again.
            Setting.HEADER_TABLE_SIZE: 0,
            Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            Setting.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: MAX_BLOCK_BYTES,
        }
        # Calls are held back one by one; what one doesn't read must not hold back the others.
        self._transport.write(settings(ours) + window_update(0, MAX_WINDOW - _INITIAL_WINDOW_BYTES))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._calls.clear()
        for task in self._tasks.values():
            task.cancel()
        if not self._tasks:
            self._closed(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._take(self._received + data if self._received else data)
        except ConnectionBroken as broken:
            _log.warning("HTTP/2 connection broken: %s", broken)
            self.send(goaway(self._last_call, broken.code))
            self._flush()
            self._transport.close()
            self._received = b""

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.congested = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.congested = False
        self._transport.resume_reading()
        self._wake()

    # The calls' side.

    def send(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    async def room(self) -> None:
        waiter = self._loop.create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def _flush(self) -> None:
        data = b"".join(self._out)
        self._out.clear()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    # The server's side.

    def drain(self) -> None:
        """Say that no more calls should come, and close when those that were on their way are over."""
        if self._greeted:
            self.send(goaway(MAX_WINDOW, ErrorCode.NO_ERROR) + frame(PING, 0, 0, _DRAINING))
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close now; what is still running is cancelled."""
        self._transport.abort()

    def _close_if_done(self) -> None:
        if self._leaving and not self._calls:
            self._flush()
            self._transport.close()

    # Frames.

    def _take(self, data: bytes) -> None:
        at = 0
        if not self._greeted:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR)
            if len(data) < len(PREFACE):
                self._received = data
                return
            self._greeted = True
            at = len(PREFACE)
        while len(data) - at >= HEADER_BYTES:
            length, kind, flags, stream = parse_header(data, at)
            end = at + HEADER_BYTES + length
            if end > len(data):
                break
            if self._block is not None and kind != CONTINUATION:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR)
            take = self._on_frame.get(kind)
            if take is not None:  # GOAWAY says what closing will say; PRIORITY and unknown kinds are to be ignored
                take(flags, stream, data[at + HEADER_BYTES : end])
            at = end
        self._received = data[at:]

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        call, size = self._calls.get(stream), len(payload)
        self._credit -= size
        if self._credit < MAX_WINDOW // 2:
            self.send(window_update(0, MAX_WINDOW - self._credit))
            self._credit = MAX_WINDOW
        if call is not None:
            data = unpadded(flags & PADDED, payload) if flags & PADDED else payload
            call.feed(data, size, last=bool(flags & END_STREAM))
        elif stream == 0 or stream > self._last_call:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR)

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if stream % 2 == 0:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR)
        self._on_block(stream, flags, unpadded(flags, payload), flags)

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR)
        _, headers_flags, block = self._block
        self._on_block(stream, headers_flags, block + payload, flags)

    def _on_block(self, stream: int, headers_flags: int, block: bytes, flags: int) -> None:
        if len(block) > MAX_BLOCK_BYTES:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM)
        if not flags & END_HEADERS:
            self._block = (stream, headers_flags, block)
            return
        self._block = None
        asked = self._read(block)
        call = self._calls.get(stream)
        if call is not None:  # trailers
            call.feed(b"", 0, last=True)
        elif stream > self._last_call:
            self._begin(stream, asked, ended=bool(headers_flags & END_STREAM))

    def _read(self, block: bytes) -> _Asked:
        """What the block asks for. Every block has to be decoded in turn, but for those that can have no effect."""
        asked = self._asked.get(block)
        if asked is not None:
            return asked
        try:
            asked = _asked_in(self._fields(block) if self._stateless else self._decoder.decode(block, raw=True))
        except HPACKError as error:
            raise ConnectionBroken(ErrorCode.COMPRESSION_ERROR) from error
        if self._stateless and not asked.traceparent and len(self._asked) < _KNOWN_BLOCKS:
            self._asked[block] = asked
        return asked

    def _fields(self, block: bytes) -> Iterator[tuple[bytes | str, bytes | str]]:
        """Of a peer without a table: only what is new has to be decoded."""
        for field in split(block):
            known = self._known.get(field)
            if known is None:
                known = tuple(self._decoder.decode(field, raw=True))
                again = len(self._known) < _KNOWN_BLOCKS and all(name != _TRACEPARENT for name, _ in known)
                if known and again:  # without a header it sets the table's size, which is to be heard each time
                    self._known[field] = known
            yield from known

    def _begin(self, stream: int, asked: _Asked, *, ended: bool) -> None:
        self._last_call = stream
        if len(self._calls) >= MAX_STREAMS or self._leaving:
            self.send(reset(stream, ErrorCode.REFUSED_STREAM))
            return
        call = self._calls[stream] = Call(self, stream, self._call_window, asked.traceparent)
        call.peer_ended = ended
        task = self._tasks[stream] = self._loop.create_task(self._run(call, asked.path))
        task.add_done_callback(functools.partial(self._ran, stream))

    async def _run(self, call: Call, path: str) -> None:
        status, message = Status.OK, ""
        try:
            handler = self._handler_of(path)
            if handler is None:
                raise CallFailed(Status.UNIMPLEMENTED, "unknown method")
            await handler(call)
        except CallFailed as failed:
            status, message = failed.status, failed.message
        except Exception:
            _log.exception("call failed")
            status, message = Status.INTERNAL, "internal error"
        if self._calls.pop(call.number, None) is not None:
            call.end(status, message)
            self._close_if_done()

    def _ran(self, stream: int, _: asyncio.Task[None]) -> None:
        del self._tasks[stream]
        if self._lost and not self._tasks:
            self._closed(self)

    def _on_reset(self, _: int, stream: int, payload: bytes) -> None:
        uint32(payload)
        if stream == 0 or stream > self._last_call:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR)
        if self._calls.pop(stream, None) is not None:
            self._tasks[stream].cancel()
            self._close_if_done()

    def _on_window(self, _: int, stream: int, payload: bytes) -> None:
        increment = uint32(payload) & MAX_WINDOW
        if not increment or stream > self._last_call:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR)
        if stream == 0:
            self.window += increment
            if self.window > MAX_WINDOW:
                raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR)
        elif (call := self._calls.get(stream)) is not None:
            call.open_window(increment)
        self._wake()

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR)
        if flags & ACK:
            self._decoder.max_allowed_table_size = 0
            self._stateless = True
            return
        for name, value in parse_settings(payload):
            if name == Setting.INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR)
                for call in self._calls.values():
                    call.open_window(value - self._call_window)
                self._call_window = value
        self.send(frame(SETTINGS, ACK, 0, b""))
        self._wake()

    def _on_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) != len(_DRAINING):
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR if stream else ErrorCode.FRAME_SIZE_ERROR)
        if not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif payload == _DRAINING:  # what was sent before the peer knew that we leave has come by now
            self._leaving = True
            self.send(goaway(self._last_call, ErrorCode.NO_ERROR))
            self._close_if_done()

    def _on_promise(self, _: int, __: int, ___: bytes) -> None:
        raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR)


def _asked_in(headers: Iterable[tuple[bytes | str, bytes | str]]) -> _Asked:
    wanted = {name: value for name, value in headers if name in (b":path", _TRACEPARENT)}
    return _Asked(_text(wanted.get(b":path", b"")), _text(wanted.get(_TRACEPARENT, b"")))


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
