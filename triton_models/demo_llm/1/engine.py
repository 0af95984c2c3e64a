"""When each token appears. Owns: the queue, the running set, simulated delays, cancellation.

One asyncio loop; nothing here blocks it and nothing here is thread-safe. A sequence is one task:
queued -> prefill (time to first token) -> decode (time per token) -> done. Knows nothing of Triton:
a `Listener` receives the tokens and says whether the caller is still there.
"""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from kv_cache import KvCache

_CANCELLATION_CHECK_S = 0.1


@dataclass(frozen=True)
class Pace:
    ttft_ms: float
    ttft_us_per_uncached_token: float
    tpot_ms: float
    jitter: float
    """Share by which every delay varies, 0 to 1."""


@dataclass(frozen=True)
class Sequence:
    prompt_ids: list[int]
    output_ids: list[int]
    pace: Pace
    rng: random.Random

    @property
    def total_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids)


class Listener(Protocol):
    def started(self, cached_tokens: int, queue_depth: int) -> None:
        """Prefill is over. `queue_depth`: sequences that were ahead in the queue on arrival."""

    def token(self, index: int, token_id: int) -> bool:
        """False ends the sequence."""

    def done(self) -> None:
        """Called exactly once, after whatever happened."""

    def is_cancelled(self) -> bool: ...


@dataclass
class Load:
    """What the metrics show."""

    queued: int = 0
    running: int = 0
    kv_cache_utilization: float = 0.0


@dataclass
class Engine:
    cache: KvCache
    max_running_sequences: int
    on_load: Callable[[Load], None]
    _queue: deque[tuple[Sequence, asyncio.Future[None]]] = field(default_factory=deque)
    _running: int = 0
    _live: dict[asyncio.Task[None], Listener] = field(default_factory=dict)

    def submit(self, sequence: Sequence, listener: Listener) -> None:
        task = asyncio.get_running_loop().create_task(self._run(sequence, listener))
        self._live[task] = listener
        task.add_done_callback(self._live.pop)

    async def watch_cancellations(self) -> None:
        """Runs for ever: one place that asks every caller, whatever its sequence is waiting for."""
        while True:
            await asyncio.sleep(_CANCELLATION_CHECK_S)
            for task, listener in list(self._live.items()):
                if listener.is_cancelled():
                    task.cancel()

    async def _run(self, sequence: Sequence, listener: Listener) -> None:
        try:
            ahead = len(self._queue)
            await self._admission(sequence)
            try:
                await self._prefill(sequence, listener, ahead)
                await self._decode(sequence, listener)
            finally:
                self._leave(sequence)
        finally:
            listener.done()

    async def _admission(self, sequence: Sequence) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (sequence, turn)
        self._queue.append(entry)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(sequence)  # admitted in the same instant: hand the place on
            else:
                self._queue.remove(entry)
                self._admit()
            raise

    def _admit(self) -> None:
        while self._queue and self._running < self.max_running_sequences:
            sequence, turn = self._queue[0]
            if not self.cache.try_hold(sequence.total_tokens):
                break
            self._queue.popleft()
            self._running += 1
            turn.set_result(None)
        self._report()

    def _leave(self, sequence: Sequence) -> None:
        self._running -= 1
        self.cache.release(sequence.total_tokens)
        self._admit()

    def _report(self) -> None:
        self.on_load(Load(len(self._queue), self._running, self.cache.utilization))

    async def _prefill(self, sequence: Sequence, listener: Listener, ahead: int) -> None:
        cached_tokens = self.cache.cached_tokens(sequence.prompt_ids)
        uncached_tokens = len(sequence.prompt_ids) - cached_tokens
        pace = sequence.pace
        await _pause(sequence, pace.ttft_ms + pace.ttft_us_per_uncached_token * uncached_tokens / 1000)
        self.cache.remember(sequence.prompt_ids)
        listener.started(cached_tokens, ahead)

    async def _decode(self, sequence: Sequence, listener: Listener) -> None:
        for index, token_id in zip(itertools.count(), sequence.output_ids, strict=False):
            if index:
                await _pause(sequence, sequence.pace.tpot_ms)
            if not listener.token(index, token_id):
                break
        # The next turn of a conversation starts with this turn's prompt and answer.
        self.cache.remember(sequence.prompt_ids + sequence.output_ids)


async def _pause(sequence: Sequence, delay_ms: float) -> None:
    share = sequence.pace.jitter * sequence.rng.uniform(-1, 1)
    await asyncio.sleep(delay_ms * (1 + share) / 1000)
