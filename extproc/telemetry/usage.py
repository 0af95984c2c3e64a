"""Usage events: one JSON line on standard output per exchange, also for those that a killed worker left open.

The same line is spooled for the ledger. Must not know: how it gets there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from extproc.stores.spool import SpoolWriter
from extproc.telemetry.open_exchanges import OpenExchanges, unfinished

_OWED = "owed"


class UsageLog:
    """Writes each event at once, as one `os.write`, so that lines of several processes never mix."""

    def __init__(self, descriptor: int, table: OpenExchanges, spool: SpoolWriter | None = None) -> None:
        self._descriptor = descriptor
        self._table = table
        self._spool = spool

    def opened(self, exchange_id: str, facts: Mapping[str, Any]) -> None:
        self._table.write(exchange_id, facts)

    def closed(self, exchange_id: str, event: Mapping[str, Any], owed: Sequence[int] = ()) -> None:
        write_event(event, self._descriptor, self._spool)
        if owed:
            self._table.write(exchange_id, {"id": exchange_id, _OWED: owed})
        else:
            self._table.clear(exchange_id)

    def settled(self, exchange_id: str) -> None:
        self._table.clear(exchange_id)


def write_event(event: Mapping[str, Any], descriptor: int, spool: SpoolWriter | None) -> None:
    """One line; what else is logged has another `message`."""
    line = orjson.dumps({"message": "usage", **event}, option=orjson.OPT_APPEND_NEWLINE)
    if spool is not None:
        spool.append(line)
    os.write(descriptor, line)


def owed_by_the_dead(table: Path) -> list[tuple[str, list[int]]]:
    """The reservations whose exchanges a killed worker accounted for and did not settle, and what to settle them to."""
    return [(facts["id"], facts[_OWED]) for facts in unfinished(table) if _OWED in facts]


def account_for_the_dead(table: Path, descriptor: int, spool: SpoolWriter | None = None) -> int:
    """Emit the events of the exchanges that a killed worker left open, and how many they were.

    They cost nothing: nobody knows how much of an answer there was.
    """
    left = [facts for facts in unfinished(table) if _OWED not in facts]
    for facts in left:
        ended = {"termination": "INTERNAL_ERROR", "reason": "worker_died", "status": 0, "price_nano": 0, "currency": ""}
        duration_ms = round((time.time() - facts["time"]) * 1e3, 3)
        write_event({**facts, **ended, "duration_ms": duration_ms}, descriptor, spool)
    table.unlink(missing_ok=True)
    return len(left)
