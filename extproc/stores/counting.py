"""The four ways to count, in Python: the reference that the scripts in `lua/` are tested against, and what a replica
goes on with while Redis is lost.

Pure functions of a counter and a time. Whole numbers only. Must not know: Redis, reservations.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from extproc.limits import FOREVER_MS, MOST_EXACT, Kind, Limit, Period, State

GAUGE_WAIT_MS = 1000
"""Nobody knows when a slot comes free; this is when it is worth asking again."""

_DAY_MS = 86_400_000


@dataclass(slots=True)
class Counter:
    """What is kept of one limit and subject. `at` is the last tick, slot or period in which it was written."""

    level: int = 0
    at: int = 0
    slots: dict[int, int] = field(default_factory=dict)

    def copy(self) -> Counter:
        return Counter(self.level, self.at, dict(self.slots))


def used_before(limit: Limit, used: int, at_ms: int) -> Counter:
    """A counter of which so much was used at `at_ms`, as far as that can be known from outside."""
    used = min(max(used, 0), limit.amount)
    if limit.kind is Kind.BUCKET:
        return Counter(used * limit.b, at_ms // limit.tick_ms)
    if limit.kind is Kind.SLIDING:
        return Counter(used, at_ms // limit.a, {at_ms // limit.a: used})
    if limit.kind is Kind.PERIOD:
        return Counter(used, period_of(Period(limit.a), at_ms)[0])
    return Counter()  # slots: those who hold them give them back elsewhere


def bring_forward(limit: Limit, counter: Counter, now_ms: int) -> None:
    """Let the counter forget what is over by now."""
    if limit.kind is Kind.BUCKET:
        tick = now_ms // limit.tick_ms
        counter.level = max(0, counter.level - max(0, tick - counter.at) * limit.a)
        counter.at = max(counter.at, tick)
    elif limit.kind is Kind.SLIDING:
        counter.at = max(counter.at, now_ms // limit.a)
        counter.slots = {slot: n for slot, n in counter.slots.items() if n and slot >= counter.at - limit.b}
        counter.level = sum(counter.slots.values())
    elif limit.kind is Kind.PERIOD:
        period, _ = period_of(Period(limit.a), now_ms)
        if period != counter.at:
            counter.level, counter.at = 0, period


def state(limit: Limit, counter: Counter, now_ms: int, wait_ms: int = 0) -> State:
    """What is left, and when it is whole again."""
    if limit.kind is Kind.BUCKET:
        left = max(0, limit.amount * limit.b - counter.level) // limit.b
        return State(left, _up(counter.level, limit.a) * limit.tick_ms, wait_ms)
    left = max(0, limit.amount - counter.level)
    if limit.kind is Kind.PERIOD:
        return State(left, period_of(Period(limit.a), now_ms)[1], wait_ms)
    used = [slot for slot, n in counter.slots.items() if n]
    return State(left, (max(used) + limit.b + 1) * limit.a - now_ms if used else 0, wait_ms)


def wait_ms(limit: Limit, counter: Counter, cost: int, now_ms: int) -> int:
    """How long until `cost` fits; 0 if it does now, -1 if it never will."""
    if cost <= 0:
        return 0
    if cost > limit.most:
        return -1
    cost = min(cost, limit.amount)
    if limit.kind is Kind.BUCKET:
        over = counter.level + (cost - limit.amount) * limit.b
        return 0 if over <= 0 else _up(over, limit.a) * limit.tick_ms
    over = counter.level + cost - limit.amount
    if over <= 0:
        return 0
    if limit.kind is Kind.PERIOD:
        return period_of(Period(limit.a), now_ms)[1]
    if limit.kind is Kind.GAUGE:
        return GAUGE_WAIT_MS
    for slot in sorted(counter.slots):
        over -= counter.slots[slot]
        if over <= 0:
            return (slot + limit.b + 1) * limit.a - now_ms
    return -1


def take(limit: Limit, counter: Counter, cost: int) -> int:
    """Take `cost`, whether it fits or not; the position where it was taken."""
    if limit.kind is Kind.BUCKET:
        counter.level = min(MOST_EXACT, counter.level + cost * limit.b)
        return 0
    counter.level += cost
    if limit.kind is Kind.SLIDING:
        counter.slots[counter.at] = counter.slots.get(counter.at, 0) + cost
        return counter.at
    return counter.at if limit.kind is Kind.PERIOD else 0


def give(limit: Limit, counter: Counter, position: int, cost: int) -> None:
    """Give back what was taken at a position; what the counter has forgotten since can't be given back."""
    if limit.kind is Kind.BUCKET:
        counter.level = max(0, counter.level - cost * limit.b)
    elif limit.kind is Kind.SLIDING:
        back = min(cost, counter.slots.get(position, 0))
        if back:
            counter.slots[position] -= back
            counter.level -= back
    elif limit.kind is Kind.GAUGE or position == counter.at:
        counter.level = max(0, counter.level - cost)


def period_of(which: Period, now_ms: int) -> tuple[int, int]:
    """The calendar period that holds `now_ms`, as a number that counts up, and how many ms of it are left."""
    day = now_ms // _DAY_MS
    if which is Period.DAY:
        return day, (day + 1) * _DAY_MS - now_ms
    if which is Period.TOTAL:
        return 0, FOREVER_MS
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days=day)
    following = datetime.date(date.year + date.month // 12, date.month % 12 + 1, 1)
    end_ms = (following - datetime.date(1970, 1, 1)).days * _DAY_MS
    return (date.year - 1970) * 12 + date.month, end_ms - now_ms


def _up(value: int, by: int) -> int:
    return -(-value // by)
