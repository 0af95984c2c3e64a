"""The micro-batcher: texts from any number of coroutines, computed together on a thread of their own.

Owns the queue and its laws: it is bounded; the most urgent goes first, together with others of about its length, so
that little is computed for padding; what can't be ready in time fails before anything is computed for it; what nobody
waits for any more is dropped. Must not know what an engine computes, nor ONNX Runtime.

Theory of operation. `encode` runs on the event loop: it puts its texts on the queue, under a lock, and awaits one
future. The thread loads the engine, then forever takes what has come, tokenises it, chooses a batch, runs it and hands
results back through the loop. Only the thread touches what has been taken; the future is only touched by the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from extproc.clock import Clock
from extproc.inference.calls import call
from extproc.inference.failure import EncoderError, Reason
from extproc.inference.interface import Encoding
from extproc.inference.padding import width_of
from extproc.inference.tokens import Tokens
from extproc.telemetry.encoder_metrics import EncoderMetrics

_LEARNING = 0.2
"""Weight of the latest batch in the estimate of what a token costs."""
_STALE_S = 1.0
"""An estimate is not believed for longer without a new batch."""

_log = logging.getLogger(__name__)


class Engine(Protocol):
    """What the thread drives; each method is called on that thread only."""

    @property
    def max_batch_tokens(self) -> int:
        """Most tokens of one `run`, padding included."""

    def tokenize(self, texts: Sequence[str]) -> Sequence[Tokens]: ...

    def run(self, batch: Sequence[Tokens]) -> Sequence[Encoding]: ...


class _Job(Struct, eq=False):
    """One call of `encode`. `over` is set by the loop when nobody waits, by the thread when it has failed."""

    future: asyncio.Future[Sequence[Encoding]]
    due_s: float
    results: list[Encoding | None]
    missing: int
    over: bool = False


class _Item(Struct, eq=False):
    """One text of a job; `tokens` once the thread has seen it."""

    job: _Job
    index: int
    text: str
    tokens: Tokens | None = None
    width: int = 0


class Batcher:
    """`load` makes the engine, on the thread, at once; until it has, texts wait. Made on a running event loop."""

    def __init__(
        self, load: Callable[[], Engine], max_waiting: int, metrics: EncoderMetrics, clock: Clock, name: str = "encoder"
    ) -> None:
        self._load = load
        self._max_waiting = max_waiting
        self._metrics = metrics
        self._now_s = clock.monotonic
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[None] = self._loop.create_future()
        self._loaded.add_done_callback(lambda loaded: loaded.cancelled() or loaded.exception())  # seen, asked or not
        self._changed = threading.Condition()
        self._arrived: list[_Item] = []
        self._waiting: list[_Item] = []
        self._pending = 0  # texts put in and not yet let go by the thread; with `_changed` held
        self._gone: EncoderError | None = None  # why it takes no more; with `_changed` held
        self._token_s = 0.0
        self._ran_s = 0.0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def ready(self) -> None:
        """Wait for the engine. Raises EncoderError when it could not be made."""
        await asyncio.shield(self._loaded)

    async def encode(self, texts: Sequence[str], deadline_s: float) -> Sequence[Encoding]:
        """One encoding per text, within `deadline_s` from now. Raises EncoderError."""
        if not texts:
            return ()
        job = _Job(self._loop.create_future(), self._now_s() + deadline_s, [None] * len(texts), len(texts))
        try:
            async with call(self._metrics, self._now_s, deadline_s):
                self._put([_Item(job, index, text) for index, text in enumerate(texts)])
                return await job.future
        finally:
            job.over = True

    async def close(self) -> None:
        """Fail what waits, let the batch under way end, and end the thread."""
        with self._changed:
            self._gone = self._gone or EncoderError(Reason.UNAVAILABLE, "it is closed")
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _put(self, items: Sequence[_Item]) -> None:
        with self._changed:
            if self._gone is not None:
                raise self._gone.again()
            if self._pending + len(items) > self._max_waiting:
                raise EncoderError(Reason.OVERLOADED, f"{self._pending} texts wait already")
            self._pending += len(items)
            self._arrived += items
            self._metrics.waiting(len(items))
            self._changed.notify()

    # From here on: the thread.

    def _work(self) -> None:
        try:
            engine = self._load()
        except EncoderError as error:
            self._end(error)
            return
        except Exception as error:
            _log.exception("the encoder could not be loaded")
            self._end(EncoderError(Reason.UNAVAILABLE, f"it could not be loaded: {error}"))
            return
        self._tell(self._loaded, None)
        while self._take():
            try:
                self._tokenize(engine)
                self._run(engine, self._choose(engine.max_batch_tokens))
            except Exception:  # a bug must not leave everyone waiting for a thread that is gone
                _log.exception("the encoder's batcher failed")
                self._fail(self._waiting, EncoderError(Reason.FAILED, "its batcher failed"))
        self._end(EncoderError(Reason.UNAVAILABLE, "it is closed"))

    def _take(self) -> bool:
        """Wait for texts and take what has come; False when closed."""
        with self._changed:
            while not (self._arrived or self._waiting or self._gone):
                self._changed.wait()
            self._waiting += self._arrived
            self._arrived = []
            return self._gone is None

    def _end(self, error: EncoderError) -> None:
        with self._changed:
            self._gone = self._gone or error
            self._waiting += self._arrived
            self._arrived = []
        self._fail(self._waiting, error)
        self._tell(self._loaded, error)

    def _tokenize(self, engine: Engine) -> None:
        self._let_go([item for item in self._waiting if item.job.over])
        new = [item for item in self._waiting if item.tokens is None]
        for item in new:
            try:
                (item.tokens,) = engine.tokenize([item.text])
            except Exception as error:  # logged without its message, which may quote the text
                _log.error("the encoder's tokenizer failed", extra={"error": type(error).__name__})
                self._fail([item], EncoderError(Reason.FAILED, "a text could not be tokenised"))
                continue
            item.width = width_of(len(item.tokens.ids))

    def _choose(self, max_tokens: int) -> Sequence[_Item]:
        """The most urgent text and others as wide as it, the most urgent first; and let fail what can't be in time
        behind those that are before it."""
        self._waiting.sort(key=lambda item: item.job.due_s)
        ready_s = self._now_s()
        # One slow batch must not condemn all that follow: an estimate that is old is tried on the first.
        stale = ready_s - self._ran_s > _STALE_S
        hopeless = []
        for place, item in enumerate(self._waiting):
            cost_s = item.width * self._token_s
            if ready_s + cost_s > item.job.due_s and not (stale and place == 0):
                hopeless.append(item)
            else:
                ready_s += cost_s
        self._fail(hopeless, EncoderError(Reason.DEADLINE, "it can't be done in time"))
        wanted = [item for item in self._waiting if not item.job.over]  # one late text is the end of all of its call
        if not wanted:
            return ()
        width = wanted[0].width
        return [item for item in wanted if item.width == width][: max(1, max_tokens // width)]

    def _run(self, engine: Engine, batch: Sequence[_Item]) -> None:
        if not batch:
            return
        began_s = self._now_s()
        try:
            encodings = engine.run([item.tokens for item in batch if item.tokens is not None])
        except Exception:
            _log.exception("the encoder failed on a batch")
            self._fail(batch, EncoderError(Reason.FAILED, "the model could not be run"))
            return
        self._ran_s = self._now_s()
        took_s = self._ran_s - began_s
        token_s = took_s / sum(item.width for item in batch)
        self._token_s += (token_s - self._token_s) * (_LEARNING if self._token_s else 1.0)
        self._metrics.ran(len(batch), took_s)
        self._let_go(batch)
        for item, encoding in zip(batch, encodings, strict=True):
            self._deliver(item, encoding)

    def _deliver(self, item: _Item, encoding: Encoding) -> None:
        job = item.job
        job.results[item.index] = encoding
        job.missing -= 1
        if not job.missing:
            self._tell(job.future, [result for result in job.results if result is not None])

    def _fail(self, items: Sequence[_Item], error: EncoderError) -> None:
        """These texts' jobs fail as a whole; the next round drops what else they wait for."""
        items = list(items)
        self._let_go(items)
        for item in items:
            if not item.job.over:
                item.job.over = True
                self._tell(item.job.future, error.again())

    def _let_go(self, items: Sequence[_Item]) -> None:
        if not items:
            return
        gone = {id(item) for item in items}
        self._waiting = [item for item in self._waiting if id(item) not in gone]
        with self._changed:
            self._pending -= len(gone)
        self._metrics.waiting(-len(gone))

    def _tell(self, future: asyncio.Future[Any], outcome: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(_settle, future, outcome)


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, EncoderError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
