"""Carries usage events from the spool to the ledger, off every request's path: it runs in the supervisor.

Owns the order of things that makes each event arrive exactly once: read, append, and only then mark as read. What was
appended and not marked is appended again, and the ledger knows its id. Must not know: who writes the spool.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from extproc.stores.ledger import Ledger
from extproc.stores.spool import SpoolReader

BATCH = 64
"""Few enough that the script keeps Redis from its other work for about a millisecond."""

_IDLE_S = 0.2
_RETRY_S = (0.2, 5.0)
_log = logging.getLogger(__name__)


class LedgerFeed(Collector):
    """Carries until it is told to finish. Collected by Prometheus's client, it says how that goes."""

    def __init__(
        self,
        reader: SpoolReader,
        ledger: Ledger,
        carried: Callable[[Sequence[Mapping[str, Any]]], None] = lambda _: None,
    ) -> None:
        """`carried` is told of the events that have reached the ledger."""
        self._reader = reader
        self._carried = carried
        self._ledger = ledger
        self._retired: list[Ledger] = []
        self._lost = False
        self._outcomes = Counter[str]()

    def collect(self) -> Iterator[Metric]:
        records = CounterMetricFamily("extproc_ledger_records", "Usage events read from the spool.", labels=["outcome"])
        for outcome in ("recorded", "known", "unreadable"):
            records.add_metric([outcome], self._outcomes[outcome])
        yield records
        waiting = self.waiting_bytes()
        yield GaugeMetricFamily("extproc_ledger_waiting_bytes", "Spooled and not in the ledger yet.", waiting)
        yield GaugeMetricFamily("extproc_ledger_degraded", "1 while the ledger is lost.", int(self._lost))

    def waiting_bytes(self) -> int:
        """Spooled and not in the ledger yet. May be asked from another thread."""
        return self._reader.waiting_bytes()

    def change(self, ledger: Ledger) -> None:
        """From now on carry to this one."""
        self._retired.append(self._ledger)
        self._ledger = ledger

    async def run(self) -> None:
        """Carry for ever."""
        shortest_s, longest_s = _RETRY_S
        retry_s = shortest_s
        while True:
            try:
                while await self._carry():
                    retry_s = shortest_s
                self._note(None)
                await asyncio.sleep(_IDLE_S)
            except Exception as error:  # Redis, the disk, or a bug of ours: carrying goes on all the same
                self._note(error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, longest_s)

    async def finish(self, timeout_s: float) -> None:
        """Carry what is left, unless that fails or takes too long; then close. `run` is over by now."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                try:
                    while await self._carry():
                        pass
                except Exception as error:
                    self._note(error)
        for ledger in (*self._retired, self._ledger):
            await ledger.close()

    async def _carry(self) -> bool:
        """Carry one batch; False if there was none."""
        while self._retired:
            await self._retired.pop().close()
        batch = self._reader.next_batch(BATCH)
        if batch is None:
            return False
        events = self._read(batch.lines)
        new = await self._ledger.append(events) if events else 0
        self._note(None)
        self._reader.done(batch)
        self._carried(events)
        self._outcomes["recorded"] += new
        self._outcomes["known"] += len(events) - new
        return True

    def _read(self, lines: Sequence[bytes]) -> Sequence[dict[str, Any]]:
        events = []
        for line in lines:
            try:
                event = orjson.loads(line)
            except orjson.JSONDecodeError:
                event = None
            if isinstance(event, dict) and event.get("id"):
                events.append(event)
            else:
                self._outcomes["unreadable"] += 1
                _log.error("a spooled usage event can't be read", extra={"bytes": len(line)})
        return events

    def _note(self, error: Exception | None) -> None:
        """One log line when the ledger is lost and one when it is back."""
        lost = error is not None
        if lost == self._lost:
            return
        self._lost = lost
        if lost:
            _log.error("the ledger can't be reached; usage waits on disk", extra={"error": repr(error)})
        else:
            _log.warning("the ledger is back")
