"""Answer decoders that every pool dialect shares: framing, size limits, and exactly one end.

Owns: an answer ends once, with `Done` or `Failed`, and nothing follows. What a piece of JSON means is told by
the dialect's reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from extproc.dialects.answer import AnswerEvent, Done, Failed, Opaque
from extproc.dialects.sse import EventTooLarge, SseDecoder, SseEvent
from extproc.dialects.upstream_errors import error_content, rejection_of
from extproc.rejection import Rejection, upstream_failed

MAX_ANSWER_BYTES = 64 << 20
"""Largest answer in one piece (a batch of 2048 embeddings of 1536 floats is about 40 MB)."""

_MAX_ERROR_BYTES = 64 << 10
_ENDS = (Done, Failed)


class StreamReader(Protocol):
    """Reads one streamed answer of one dialect."""

    def read(self, event: SseEvent) -> Sequence[AnswerEvent]:
        """Raises ValueError for what can't be read."""

    def end(self) -> Sequence[AnswerEvent]:
        """The body ended after the events read so far: complete (`Done`) or truncated (`Failed`)."""


def failed(message: str) -> Failed:
    return Failed(upstream_failed(message))


class SseAnswerDecoder:
    """A streamed answer."""

    __slots__ = ("_over", "_reader", "_sse")

    def __init__(self, reader: StreamReader) -> None:
        self._sse = SseDecoder()
        self._reader = reader
        self._over = False

    def feed(self, data: bytes) -> list[AnswerEvent]:
        if self._over:
            return []
        try:
            return self._read(self._sse.feed(data))
        except EventTooLarge as error:
            events = self._read(error.before)
            if not self._over:
                events.append(failed("The model server sent an oversized event."))
            self._over = True
            return events

    def _read(self, blocks: list[SseEvent]) -> list[AnswerEvent]:
        events: list[AnswerEvent] = []
        for block in blocks:
            try:
                events += self._reader.read(block)
            except (ValueError, RecursionError):
                events.append(failed("The model server sent an event that can't be read."))
            if events and isinstance(events[-1], _ENDS):
                self._over = True
                break
        return events

    def finish(self) -> list[AnswerEvent]:
        if self._over:
            return []
        self._over = True
        return list(self._reader.end())


class WholeAnswerDecoder:
    """An answer in one body, read when it is complete. `read` raises ValueError for what can't be read."""

    __slots__ = ("_body", "_read", "_size_bytes")

    def __init__(self, read: Callable[[bytes], Sequence[AnswerEvent]]) -> None:
        self._read: Callable[[bytes], Sequence[AnswerEvent]] | None = read
        self._body: list[bytes] = []
        self._size_bytes = 0

    def feed(self, data: bytes) -> list[AnswerEvent]:
        if self._read is None:
            return []
        self._body.append(data)
        self._size_bytes += len(data)
        if self._size_bytes > MAX_ANSWER_BYTES:
            self._read = None
            self._body.clear()
            return [failed(f"The model server's answer is larger than {MAX_ANSWER_BYTES} bytes.")]
        return []

    def finish(self) -> list[AnswerEvent]:
        read, self._read = self._read, None
        if read is None:
            return []
        try:
            return list(read(b"".join(self._body)))
        except (ValueError, RecursionError):
            return [failed("The model server sent an answer that can't be read.")]


class ErrorDecoder:
    """The body of a response with an error status; `judge` says what status and JSON mean."""

    __slots__ = ("_body", "_judge", "_over", "_status")

    def __init__(self, status: int, judge: Callable[[int, Any], Rejection] = rejection_of) -> None:
        self._status = status
        self._judge = judge
        self._body = b""
        self._over = False

    def feed(self, data: bytes) -> list[AnswerEvent]:
        if len(self._body) < _MAX_ERROR_BYTES:
            self._body += data[: _MAX_ERROR_BYTES - len(self._body)]
        return []

    def finish(self) -> list[AnswerEvent]:
        if self._over:
            return []
        self._over = True
        return [Failed(self._judge(self._status, error_content(self._body)))]


class PassThroughDecoder:
    """An answer nobody reads."""

    __slots__ = ("_over",)

    def __init__(self) -> None:
        self._over = False

    def feed(self, data: bytes) -> list[AnswerEvent]:
        return [Opaque(data)] if data else []

    def finish(self) -> list[AnswerEvent]:
        if self._over:
            return []
        self._over = True
        return [Done()]


def is_error(status: int) -> bool:
    """Also redirects: a model server that redirects is not one we can follow."""
    return not 200 <= status < 300


def is_stream(content_type: str) -> bool:
    return content_type.lower().startswith("text/event-stream")
