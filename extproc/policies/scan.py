"""One exchange's passes through the encoder, shared by every policy that wants one.

Owns: that a text is encoded once however many policies ask for it, that no request takes more than its budget of
windows, which windows those are, and what was covered. Must not know what the encodings are wanted for, nor anything
of the encoder but its protocol.

`scan_texts` begins it with the request's texts, so that it runs while other policies wait for Redis. A policy that
looks at texts then does

    scan = ctx.scan                                  # None: no encoder is configured
    scan.want(text, Importance.SUSPICIOUS, (40, 90)) # optional: what its rules found, before it asks
    for scanned in await scan.results(texts): ...    # any texts, the request's own or changed ones

Everything is on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
from collections.abc import Iterable, Sequence

from msgspec import Struct

from extproc.clock import Clock
from extproc.detection.spans import Span
from extproc.inference.interface import Encoder, Encoding

_CHUNK_WINDOWS = 8
"""Windows given to the encoder together: few, so that the first results do not wait for the last."""


class Importance(enum.IntEnum):
    """What is encoded first where the budget is less than everything."""

    SUSPICIOUS = 0
    STANDING_OUT = 1
    LAST_USER_TURN = 2
    TOOL_RESULT = 3
    REST = 4


class Window(Struct, frozen=True):
    """`encoding` is of `text[start:end]` (code points); the offsets of its spans count from `start`."""

    start: int
    end: int
    encoding: Encoding


class Scanned(Struct, frozen=True):
    """What the encoder says about one text: its encoded windows in order, of `total` that would cover all of it."""

    windows: tuple[Window, ...]
    total: int

    @property
    def complete(self) -> bool:
        """All of the text was encoded; an empty text always is."""
        return len(self.windows) == self.total

    @property
    def injection(self) -> float | None:
        """The highest probability of any window; None without windows or without such a head."""
        return max((w.encoding.injection for w in self.windows if w.encoding.injection is not None), default=None)

    def spans(self) -> tuple[Span, ...]:
        """The entities, with offsets in the text, in order. Of two that overlap, as they do where windows do, the
        longer stays: the other was cut by its window's edge."""
        found = [
            Span(w.start + span.start, w.start + span.end, span.entity, span.confidence, span.evidence)
            for w in self.windows
            for span in w.encoding.spans
        ]
        return _without_overlaps(found)


class Coverage(Struct, frozen=True):
    """How much of everything that was asked about has been given to the encoder, in windows."""

    done: int
    total: int


class _Part(Struct, eq=False):
    """One window of one text, waiting while `chunk` is None; its encoding is the chunk's number `index`."""

    text: str
    start: int
    end: int
    spread: int
    importance: Importance = Importance.REST
    worth: float = 0.0
    chunk: asyncio.Task[Sequence[Encoding]] | None = None
    index: int = 0


class Scan:
    """The passes of one exchange: at most `budget_windows`, all done within `deadline_s` of now."""

    def __init__(self, encoder: Encoder, budget_windows: int, deadline_s: float, clock: Clock) -> None:
        self._encoder = encoder
        self._now_s = clock.monotonic
        self._left = budget_windows
        self._ends_s = clock.monotonic() + deadline_s
        self._parts: dict[str, list[_Part]] = {}
        self._chunks: list[asyncio.Task[Sequence[Encoding]]] = []
        self._done = 0

    def want(
        self,
        text: str,
        importance: Importance = Importance.REST,
        within: tuple[int, int] | None = None,
        worth: float = 0.0,
    ) -> None:
        """This text will be asked for. What overlaps `within` (code points; None: all of it) becomes as important as
        that, unless it is more so already; what is begun is begun. Of what is as important, that of most `worth` goes
        first."""
        parts = self._parts.get(text)
        if parts is None:
            ranges = self._encoder.windows(text)
            parts = [
                _Part(text, start, end, rank) for (start, end), rank in zip(ranges, _spread(len(ranges)), strict=True)
            ]
            self._parts[text] = parts
        start, end = within or (0, len(text))
        for part in parts:
            if part.start < end and start < part.end:
                part.importance = min(part.importance, importance)
                part.worth = max(part.worth, worth)

    @property
    def left(self) -> int:
        """How many windows the budget still has room for."""
        return self._left

    def waiting(self, text: str) -> Sequence[tuple[int, int]]:
        """The windows of a wanted text that the encoder has not been given."""
        return [(part.start, part.end) for part in self._parts[text] if part.chunk is None]

    def begin(self) -> None:
        """Start on what is wanted so far. Where the budget is less than that, half of it is kept until a policy asks
        for results: by then the rules have said what is suspicious."""
        total = sum(len(parts) for parts in self._parts.values())
        self._spend(self._left if total <= self._left else self._left // 2)

    async def results(self, texts: Sequence[str]) -> Sequence[Scanned]:
        """One for each text, in order, waiting for as many windows as the budget has room for.

        Raises DependencyError when the encoder failed on any of them.
        """
        for text in texts:
            self.want(text)
        self._spend(self._left)
        awaited = {part.chunk for text in texts for part in self._parts[text] if part.chunk is not None}
        if awaited:
            await asyncio.wait(awaited)  # one policy's deadline must not cancel what another waits for
        return [self._scanned(text) for text in texts]

    @property
    def coverage(self) -> Coverage:
        """Of everything that was wanted so far."""
        return Coverage(self._done, sum(len(parts) for parts in self._parts.values()))

    def close(self) -> None:
        """The exchange is over: what has not been encoded need not be."""
        self._left = 0
        for chunk in self._chunks:
            chunk.cancel()

    def _spend(self, windows: int) -> None:
        """Give the encoder the most important windows that wait, so many at most."""
        if windows <= 0:
            return
        waiting = [part for parts in self._parts.values() for part in parts if part.chunk is None]
        chosen = heapq.nsmallest(windows, waiting, key=lambda part: (part.importance, -part.worth, part.spread))
        self._left -= len(chosen)
        self._done += len(chosen)
        for first in range(0, len(chosen), _CHUNK_WINDOWS):
            self._encode(chosen[first : first + _CHUNK_WINDOWS])

    def _encode(self, parts: Sequence[_Part]) -> None:
        remaining_s = max(0.0, self._ends_s - self._now_s())
        work = self._encoder.encode([part.text[part.start : part.end] for part in parts], remaining_s)
        chunk = asyncio.ensure_future(work)
        chunk.add_done_callback(_seen)
        self._chunks.append(chunk)
        for index, part in enumerate(parts):
            part.chunk, part.index = chunk, index

    def _scanned(self, text: str) -> Scanned:
        parts = self._parts[text]
        windows = (Window(p.start, p.end, p.chunk.result()[p.index]) for p in parts if p.chunk is not None)
        return Scanned(tuple(windows), len(parts))


def _seen(chunk: asyncio.Task[Sequence[Encoding]]) -> None:
    """A failure that nobody asks about any more is no bug."""
    if not chunk.cancelled():
        chunk.exception()


def _spread(count: int) -> Iterable[int]:
    """The order in which to take `count` windows so that any first few of them lie evenly over the text: the bits of
    the index, reversed. Whoever hides something behind padding can't know a side that is never looked at."""
    bits = max(1, (count - 1).bit_length())
    return (int(f"{index:0{bits}b}"[::-1], 2) for index in range(count))


def _without_overlaps(spans: Iterable[Span]) -> tuple[Span, ...]:
    kept: list[Span] = []
    for span in sorted(spans, key=lambda one: (one.start - one.end, -one.confidence)):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return tuple(sorted(kept, key=lambda one: one.start))
