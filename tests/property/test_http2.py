"""Whatever bytes come, and however they are cut, a connection answers the same, closes, or waits for more."""

from __future__ import annotations

import asyncio
import itertools
import struct
from typing import cast

from hypothesis import example, given, settings
from hypothesis import strategies as st

from extproc.edge import frames
from extproc.edge.calls import Call
from extproc.edge.http2 import Connection

# POST, http, and a path as a literal that enters the table.
ECHO = b"\x83\x86\x44\x05/echo"
MESSAGE = b"\0" + struct.pack(">I", 3) + b"abc"
TALK = b"".join(
    (
        frames.PREFACE,
        frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 12}),
        frames.frame(frames.HEADERS, frames.END_HEADERS, 1, ECHO),
        frames.frame(frames.DATA, 0, 1, MESSAGE[:4]),
        frames.frame(frames.HEADERS, 0, 3, ECHO[:3]),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 3, ECHO[3:]),
        frames.frame(frames.DATA, frames.PADDED, 1, b"\x02" + MESSAGE[4:] + MESSAGE + b"\0\0"),
        frames.frame(frames.PING, 0, 0, b"12345678"),
        frames.frame(frames.RST_STREAM, 0, 3, bytes(4)),
        frames.window_update(1, 100),
        frames.frame(frames.DATA, frames.END_STREAM, 1, b""),
    )
)
flags = st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D])
anything = st.builds(
    frames.frame,
    st.integers(0, 10),
    flags,
    st.integers(0, 5),
    st.binary(max_size=20) | st.just(ECHO) | st.just(MESSAGE),
)


class Transport:
    """In memory; keeps what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def echo(call: Call) -> None:
    while (message := await call.read()) is not None:
        await call.write(message)


async def talk(pieces: list[bytes]) -> tuple[bytes, bool, int]:
    """What was answered, whether the connection was closed, and how many calls are open, all in the end."""
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    connection = Connection({"/echo": echo}.get, lambda _: None)
    transport = Transport()
    connection.connection_made(cast("asyncio.Transport", transport))
    for piece in pieces:
        if not transport.closed:
            connection.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    calls = len(connection._calls)
    connection.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not failures
    assert not connection._tasks
    return transport.written, transport.closed, calls


def data_of(written: bytes, stream: int) -> bytes:
    data, at = b"", 0
    while at < len(written):
        length, kind, _, number = frames.parse_header(written, at)
        at += frames.HEADER_BYTES + length
        if kind == frames.DATA and number == stream:
            data += written[at - length : at]
    return data


@given(st.lists(st.integers(0, len(TALK)), max_size=12))
@example(list(range(len(TALK))))
def test_cuts_mean_nothing(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(TALK)]
    pieces = [TALK[start:end] for start, end in itertools.pairwise(places)]
    written, closed, calls = asyncio.run(talk(pieces))
    assert (data_of(written, 1), closed, calls) == (MESSAGE + MESSAGE, False, 0)


@settings(max_examples=150)
@given(st.lists(anything | st.binary(max_size=30), max_size=12))
def test_no_bytes_make_it_fail(sent: list[bytes]) -> None:
    asyncio.run(talk([frames.PREFACE, *sent]))
