"""Usage summed up: by whom, for what, when. Owns which fields can be asked for and how amounts are added.

Must not know: where records come from, or how a sum is shown. Memory is bounded by the number of groups.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

DIMENSIONS = ("principal", "team", "tier", "model", "operation", "pool", "day", "termination", "cache")
"""What usage can be summed up by. `day` is in UTC, and the day on which a request arrived."""


class Usage(Struct):
    """What some requests used. `cost_nano` is by currency: amounts of different ones are never added."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    saved_tokens: int = 0
    cost_nano: dict[str, int] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """One more request. Raises ValueError for a count that is none."""
        self.requests += 1
        self.prompt_tokens += _count(record, "prompt_tokens")
        self.cached_tokens += _count(record, "cached_tokens")
        self.completion_tokens += _count(record, "completion_tokens")
        self.saved_tokens += _count(record, "saved_tokens")
        currency = record.get("currency")
        if currency:
            self.cost_nano[currency] = self.cost_nano.get(currency, 0) + _count(record, "price_nano")


class Summary:
    """Usage by any of DIMENSIONS, in their given order; of requests that arrived in [`since_s`, `until_s`)."""

    def __init__(self, by: Sequence[str], since_s: float | None = None, until_s: float | None = None) -> None:
        self._by = by
        self._since_s, self._until_s = since_s, until_s
        self._groups: dict[tuple[str, ...], Usage] = {}
        self.total = Usage()

    def add(self, record: Mapping[str, Any]) -> None:
        """One more request, if it is of the time asked for. Raises ValueError for a record that is none."""
        if not self.wants(record):
            return
        group = tuple(dimension(record, name) for name in self._by)
        self._groups.setdefault(group, Usage()).add(record)
        self.total.add(record)

    def wants(self, record: Mapping[str, Any]) -> bool:
        """Whether it is of the time asked for."""
        time_s = float(record.get("time") or 0.0)
        return (self._since_s is None or time_s >= self._since_s) and (self._until_s is None or time_s < self._until_s)

    def groups(self) -> Sequence[tuple[tuple[str, ...], Usage]]:
        """Each group's values of the dimensions, and its usage; sorted."""
        return sorted(self._groups.items(), key=lambda item: item[0])


def dimension(record: Mapping[str, Any], name: str) -> str:
    """A record's value of one of DIMENSIONS, empty where it was never known."""
    if name == "day":
        return datetime.datetime.fromtimestamp(float(record.get("time") or 0.0), datetime.UTC).date().isoformat()
    return str(record.get(name) or "")


def _count(record: Mapping[str, Any], name: str) -> int:
    return int(record.get(name) or 0)
