"""One gRPC call over one HTTP/2 stream: messages in and out, and the flow control of both directions."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from extproc.edge.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEADERS,
    MAX_WINDOW,
    RESPONSE_HEADERS,
    ConnectionBroken,
    ErrorCode,
    frame,
    reset,
    trailers,
    window_update,
)
from extproc.edge.stream import MAX_MESSAGE_BYTES, CallFailed, Status

WINDOW_BYTES = 1 << 18
"""As much of a call's messages may be on its way or waiting to be read."""

_PREFIX_BYTES = 5  # a flag and a length before each message


class Link(Protocol):
    """What a call needs of its connection."""

    window: int
    """Bytes of data that the peer still takes, over all streams."""

    @property
    def congested(self) -> bool:
        """The kernel takes no more for now."""

    def send(self, data: bytes) -> None:
        """Whole frames. Written together with what other calls send in the same turn of the event loop."""

    async def room(self) -> None:
        """Until a window may have opened, or the congestion be over."""


class Call:
    """Read and written by one coroutine; fed by its connection, which knows when it is over."""

    __slots__ = (
        "_begun",
        "_credit",
        "_link",
        "_queue",
        "_received",
        "_waiter",
        "number",
        "peer_ended",
        "traceparent",
        "window",
    )

    def __init__(self, link: Link, number: int, window: int, traceparent: str = "") -> None:
        self._link = link
        self._queue: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._received = bytearray()
        self._credit = WINDOW_BYTES
        self._begun = False
        self.number = number
        self.traceparent = traceparent
        self.window = window
        self.peer_ended = False

    async def read(self) -> bytes | None:
        """The next message, or None when the peer has said all. Raises CallFailed for what is no message."""
        while not self._queue:
            self._split()
            if self._queue:
                break
            if self.peer_ended:
                return None
            self._give_credit()  # the rest of a message that is larger than the window
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = self._queue.popleft()
        if not self._queue:
            self._give_credit()
        return message

    async def write(self, message: bytes) -> None:
        """Returns when all of it is on its way: the peer's windows may have to open first."""
        data = b"\x00" + len(message).to_bytes(4, "big") + message
        if not self._begun:
            self._begun = True
            self._link.send(frame(HEADERS, END_HEADERS, self.number, RESPONSE_HEADERS))
        at = 0
        while at < len(data):
            size = min(len(data) - at, self.window, self._link.window, FRAME_BYTES)
            if size <= 0 or self._link.congested:
                await self._link.room()
                continue
            self.window -= size
            self._link.window -= size
            self._link.send(frame(DATA, 0, self.number, data[at : at + size]))
            at += size

    def end(self, status: Status, message: str) -> None:
        """Say that the call is over. A peer that is not done is told that we don't want the rest."""
        block = trailers(status, message)
        headers = block if self._begun else RESPONSE_HEADERS + block
        self._link.send(frame(HEADERS, END_HEADERS | END_STREAM, self.number, headers))
        if not self.peer_ended:
            self._link.send(reset(self.number, ErrorCode.NO_ERROR))

    def feed(self, data: bytes, size: int, *, last: bool) -> None:
        """`data` came in a frame that took `size` of the window. Raises ConnectionBroken if it may not come."""
        if self.peer_ended:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR)
        self._credit -= size
        if self._credit < 0:
            raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR)
        self._received += data
        self.peer_ended = last
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def open_window(self, increment: int) -> None:
        """Raises ConnectionBroken. May make the window negative, if the peer shrinks it."""
        self.window += increment
        if self.window > MAX_WINDOW:
            raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR)

    def _split(self) -> None:
        """Messages out of the bytes that have come."""
        data, at = self._received, 0
        while len(data) - at >= _PREFIX_BYTES:
            length = int.from_bytes(data[at + 1 : at + _PREFIX_BYTES], "big")
            if data[at]:
                raise CallFailed(Status.UNIMPLEMENTED, "compressed messages are not taken")
            if length > MAX_MESSAGE_BYTES:
                raise CallFailed(Status.RESOURCE_EXHAUSTED, "the message is too large")
            end = at + _PREFIX_BYTES + length
            if end > len(data):
                break
            self._queue.append(bytes(data[at + _PREFIX_BYTES : end]))
            at = end
        del data[:at]

    def _give_credit(self) -> None:
        if self._credit < WINDOW_BYTES // 2 and not self.peer_ended:
            self._link.send(window_update(self.number, WINDOW_BYTES - self._credit))
            self._credit = WINDOW_BYTES
