"""HTTP/2 frames (RFC 9113, section 4) and gRPC's few header blocks, as bytes. No state, no I/O."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Plain integers rather than an enum: they are compared for every frame, and an enum's member costs ten times that.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

HEADER_BYTES = 9
FRAME_BYTES = 16384
"""The largest frame that we take, and that we send: HTTP/2's default and smallest limit."""
MAX_WINDOW = (1 << 31) - 1

_HEADER = struct.Struct(">BHBBI")
_UINT32 = struct.Struct(">I")
_SETTING = struct.Struct(">HI")


class ErrorCode(IntEnum):
    """RFC 9113, section 7; those we use."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    FLOW_CONTROL_ERROR = 0x3
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class Setting(IntEnum):
    """RFC 9113, section 6.5.2; those we use."""

    HEADER_TABLE_SIZE = 0x1
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_HEADER_LIST_SIZE = 0x6


class Status(IntEnum):
    """gRPC's status codes; those we use."""

    OK = 0
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13


class ConnectionBroken(Exception):
    """The peer does not speak HTTP/2 as it should. Errors of one stream are treated so as well, as the RFC allows."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    length = len(payload)
    return _HEADER.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def parse_header(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Length, kind, flags and stream of the frame that begins at `at`. Raises ConnectionBroken if it is too large."""
    high, low, kind, flags, stream = _HEADER.unpack_from(data, at)
    if high or low > FRAME_BYTES:
        raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR)
    return low, kind, flags, stream & MAX_WINDOW


def uint32(payload: bytes) -> int:
    """Raises ConnectionBroken for any other length than four bytes."""
    if len(payload) != _UINT32.size:
        raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR)
    return int(_UINT32.unpack(payload)[0])


def settings(values: dict[Setting, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    if len(payload) % _SETTING.size:
        raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR)
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _UINT32.pack(increment))


def reset(stream: int, code: ErrorCode) -> bytes:
    return frame(RST_STREAM, 0, stream, _UINT32.pack(code))


def goaway(last_stream: int, code: ErrorCode) -> bytes:
    return frame(GOAWAY, 0, 0, _UINT32.pack(last_stream) + _UINT32.pack(code))


def unpadded(flags: int, payload: bytes) -> bytes:
    """A DATA or HEADERS payload without padding and priority. Raises ConnectionBroken."""
    padding = 0
    if flags & PADDED:
        if not payload:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR)
        padding, payload = payload[0], payload[1:]
    if flags & WITH_PRIORITY:
        payload = payload[5:]
    if padding > len(payload):
        raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR)
    return payload[: len(payload) - padding]


def _literal(name: bytes, value: bytes) -> bytes:
    """RFC 7541, section 6.2.2: a literal that enters no table. Both are shorter than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


RESPONSE_HEADERS = b"\x88" + _literal(b"content-type", b"application/grpc")
"""`:status: 200` (index 8 of the static table) and the content type."""


def trailers(status: Status, message: str) -> bytes:
    """`message` is ASCII without percent signs."""
    block = _literal(b"grpc-status", str(int(status)).encode())
    return block + _literal(b"grpc-message", message.encode()) if message else block
