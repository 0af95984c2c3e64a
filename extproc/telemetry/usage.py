"""Usage events: one JSON line on standard output per exchange, also for those that a killed worker left open."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from extproc.telemetry.open_exchanges import OpenExchanges, unfinished


class UsageLog:
    """Writes each event at once, as one `os.write`, so that lines of several processes never mix."""

    def __init__(self, descriptor: int, table: OpenExchanges) -> None:
        self._descriptor = descriptor
        self._table = table

    def opened(self, exchange_id: str, facts: Mapping[str, Any]) -> None:
        self._table.write(exchange_id, facts)

    def closed(self, exchange_id: str, event: Mapping[str, Any]) -> None:
        write_event(self._descriptor, event)
        self._table.clear(exchange_id)


def write_event(descriptor: int, event: Mapping[str, Any]) -> None:
    """One line; what else is logged has another `message`."""
    os.write(descriptor, orjson.dumps({"message": "usage", **event}, option=orjson.OPT_APPEND_NEWLINE))


def account_for_the_dead(table: Path, descriptor: int) -> int:
    """Emit the events of the exchanges that a killed worker left open, and how many they were."""
    left = unfinished(table)
    for facts in left:
        ended = {"termination": "INTERNAL_ERROR", "reason": "worker_died", "status": 0}
        duration_ms = round((time.time() - facts["time"]) * 1e3, 3)
        write_event(descriptor, {**facts, **ended, "duration_ms": duration_ms})
    table.unlink(missing_ok=True)
    return len(left)
