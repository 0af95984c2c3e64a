"""Server-Sent Events, incrementally: bytes <-> events (WHATWG HTML, section 9.2).

Owns framing only; what the data means is the dialect's business. Differences from a browser, each on purpose:
a block without `data` (a comment, a bare `event:`) is an event too, so that keep-alives can be passed on;
`id` and `retry` are not interpreted; data stays bytes, because the JSON decoder checks UTF-8 anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_LIMIT_BYTES = 1 << 20

_BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """An event grew over the decoder's limit; nothing after it can be read. `before`: the events that came first."""

    def __init__(self, limit_bytes: int, before: list[SseEvent]) -> None:
        super().__init__(f"an event is larger than {limit_bytes} bytes")
        self.before = before


@dataclass(slots=True)
class SseEvent:
    """One block. `data` None: it had no data field. `raw`: its bytes with the blank line that ends it, every line
    ending written as LF (byte-exact for streams that use LF, as all known model servers do)."""

    data: bytes | None
    event: str | None
    raw: bytes


class SseDecoder:
    """`feed` any split of a stream, get each event once its blank line has arrived. Raises EventTooLarge."""

    __slots__ = ("_after_cr", "_limit_bytes", "_pending", "_start")

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._pending = bytearray()
        self._after_cr = False
        self._start: bytes | None = b""

    def feed(self, data: bytes) -> list[SseEvent]:
        if self._start is not None:
            data = self._skip_bom(data)
        if self._after_cr or b"\r" in data:
            data = self._unify_newlines(data)
        if self._pending:
            # Only the seam and the new bytes can hold the first blank line: keeps many tiny chunks linear.
            seam = len(self._pending) - 1
            self._pending += data
            end = self._pending.rfind(b"\n\n", seam)
            if end < 0:
                return self._keep(b"", [])
            data = bytes(self._pending)
            self._pending.clear()
        else:
            end = data.rfind(b"\n\n")
            if end < 0:
                return self._keep(data.lstrip(b"\n"), [])
        return self._keep(data[end + 2 :].lstrip(b"\n"), self._events(data[:end]))

    def _keep(self, rest: bytes, events: list[SseEvent]) -> list[SseEvent]:
        self._pending += rest
        if len(self._pending) > self._limit_bytes + 1:  # one may be half of the blank line, which doesn't count
            raise EventTooLarge(self._limit_bytes, events)
        return events

    def _events(self, blocks: bytes) -> list[SseEvent]:
        events: list[SseEvent] = []
        for block in blocks.split(b"\n\n"):
            block = block.strip(b"\n")
            if not block:
                continue
            if len(block) > self._limit_bytes:
                raise EventTooLarge(self._limit_bytes, events)
            raw = block + b"\n\n"
            if block.startswith(b"data: ") and b"\n" not in block:
                events.append(SseEvent(block[6:], None, raw))
            else:
                events.append(_parse_lines(block, raw))
        return events

    def _skip_bom(self, data: bytes) -> bytes:
        """The first three bytes may be a byte order mark, and may arrive one by one."""
        head = (self._start or b"") + data
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._start = head
            return b""
        self._start = None
        return head.removeprefix(_BOM)

    def _unify_newlines(self, data: bytes) -> bytes:
        """CR and CRLF become LF. A CR ends its line at once; an LF after it, even in the next chunk, is part of it."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
            if not data:
                return data
        self._after_cr = data.endswith(b"\r") or (self._after_cr and not data)
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _parse_lines(block: bytes, raw: bytes) -> SseEvent:
    data: list[bytes] = []
    event = None
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value.decode("utf-8", "replace")
    return SseEvent(b"\n".join(data) if data else None, event, raw)


def encode_sse(data: bytes, event: str | None = None) -> bytes:
    """One event. Newlines inside `data` become further data lines, so that decoding gives it back."""
    if b"\n" in data or b"\r" in data:
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        data = b"\ndata: ".join(lines)
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + data + b"\n\n"
