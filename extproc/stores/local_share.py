"""Reservations in the memory of one process: the reference for those in Redis, and what goes on without it.

The same operations with the same results as the scripts in `lua/`; a property test holds the two together. Must not
know: Redis.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from extproc.clock import Clock
from extproc.limits import Admission, Charge, Limit, Lost, State
from extproc.stores.counting import Counter, bring_forward, give, state, take, used_before, wait_ms

CAPACITY = 50_000
"""As many counters are kept; one that was not used for longest is forgotten first."""


@dataclass(slots=True)
class _Entry:
    """What one reservation took of one limit, and where."""

    key: str
    limit: Limit
    floor: int
    taken: list[tuple[int, int]]


@dataclass(slots=True)
class _Open:
    expires_ms: int
    entries: list[_Entry | None]  # None: a shadow that would have refused


class LocalCounts:
    """Counters and open reservations; every operation is given the time."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._counters: OrderedDict[str, Counter] = OrderedDict()
        self._open: dict[str, _Open] = {}
        self._closed: dict[str, list[_Entry | None] | None] = {}  # None: settled

    def clear(self) -> None:
        """Forget everything."""
        self._counters.clear()
        self._open.clear()
        self._closed.clear()

    def reserve(self, reservation: str, charges: Sequence[Charge], ttl_ms: int, now_ms: int) -> Admission:
        """All charges or none but the sticky ones. A reservation with an empty name is not kept."""
        again = reservation in self._open
        counters = [self._counter(charge.key, charge.limit, now_ms) for charge in charges]
        waits = [
            0 if again else wait_ms(charge.limit, counter, charge.cost, now_ms)
            for charge, counter in zip(charges, counters, strict=True)
        ]
        refusing = [c for c, wait in zip(charges, waits, strict=True) if wait != 0 and not c.limit.shadow]
        sticky_fits = not any(charge.limit.sticky for charge in refusing)
        entries: list[_Entry | None] = []
        states: list[State] = []
        retry_ms = 0
        for charge, counter, wait in zip(charges, counters, waits, strict=True):
            limit = charge.limit
            taken = []
            if not again and wait == 0 and (not refusing or (sticky_fits and limit.sticky)):
                taken = [(take(limit, counter, charge.cost), charge.cost)]
                self._save(charge.key, counter)
            skipped = wait != 0 and limit.shadow
            entries.append(None if skipped else _Entry(charge.key, limit.unscaled(), charge.floor, taken))
            if refusing and not limit.shadow and retry_ms >= 0:
                left = wait_ms(limit, counter, charge.cost, now_ms)
                retry_ms = -1 if left < 0 else max(retry_ms, left)
            states.append(state(limit, counter, now_ms, wait))
        if not refusing and reservation and not again:
            self._open[reservation] = _Open(now_ms + ttl_ms, entries)
        return Admission(not refusing, retry_ms, tuple(states))

    def extend(self, reservation: str, more: Sequence[int], now_ms: int) -> bool | None:
        """Draw more, all or nothing. None: there is no such reservation."""
        held = self._open.get(reservation)
        if held is None:
            return None
        drawn = []
        for entry, cost in zip(held.entries, more, strict=True):
            if entry is not None and cost > 0:
                counter = self._counter(entry.key, entry.limit, now_ms)
                if wait_ms(entry.limit, counter, cost, now_ms) != 0 and not entry.limit.shadow:
                    return False
                drawn.append((entry, counter, cost))
        for entry, counter, cost in drawn:
            entry.taken.append((take(entry.limit, counter, cost), cost))
            self._save(entry.key, counter)
        return True

    def settle(
        self, reservation: str, actual: Sequence[int], now_ms: int, charges: Sequence[Charge] | None = None
    ) -> bool:
        """Make the charges what they really were, once; with `charges` also of a reservation that is not known."""
        held = self._open.pop(reservation, None)
        closed = reservation in self._closed
        if held is not None:
            entries = held.entries
        elif closed:
            left = self._closed[reservation]
            if left is None:
                return False
            entries = left
        elif charges is not None:
            entries = [_Entry(charge.key, charge.limit, charge.floor, []) for charge in charges]
        else:
            return False
        for entry, amount in zip(entries, actual, strict=True):
            if entry is not None:
                self._correct(entry, amount, now_ms)
        if (closed and held is None) or charges is not None:
            self._closed[reservation] = None
        return True

    def renew(self, reservations: Sequence[str], ttl_ms: int, now_ms: int) -> None:
        """Keep reservations open."""
        for reservation in reservations:
            if reservation in self._open:
                self._open[reservation].expires_ms = now_ms + ttl_ms

    def reap(self, now_ms: int, most: int) -> int:
        """Close what nobody keeps open any more, at what was surely used; how many there were."""
        expired = sorted((held.expires_ms, name) for name, held in self._open.items() if held.expires_ms <= now_ms)
        for _, name in expired[:most]:
            entries = self._open.pop(name).entries
            for entry in entries:
                if entry is not None:
                    self._correct(entry, entry.floor, now_ms)
            self._closed[name] = entries
        return len(expired[:most])

    def knows(self, key: str) -> bool:
        """This counter was used here."""
        return key in self._counters

    def begin(self, key: str, counter: Counter) -> None:
        """Go on from what was used elsewhere."""
        self._save(key, counter)

    def look(self, key: str, limit: Limit, now_ms: int) -> State:
        """One counter as it is now."""
        return state(limit, self._counter(key, limit, now_ms), now_ms)

    def _counter(self, key: str, limit: Limit, now_ms: int) -> Counter:
        """One counter as it is now. Looking changes nothing: it must not matter how a refused request saw the limit."""
        kept = self._counters.get(key)
        counter = Counter() if kept is None else kept.copy()
        bring_forward(limit, counter, now_ms)
        return counter

    def _save(self, key: str, counter: Counter) -> None:
        self._counters[key] = counter
        self._counters.move_to_end(key)
        if len(self._counters) > self._capacity:
            self._counters.popitem(last=False)

    def _correct(self, entry: _Entry, actual: int, now_ms: int) -> None:
        """Make what was taken be `actual` in all."""
        taken = sum(amount for _, amount in entry.taken)
        if taken == actual:
            return
        counter = self._counter(entry.key, entry.limit, now_ms)
        self._save(entry.key, counter)
        if actual > taken:
            entry.taken.append((take(entry.limit, counter, actual - taken), actual - taken))
            return
        back = taken - actual
        for index in range(len(entry.taken) - 1, -1, -1):
            position, amount = entry.taken[index]
            part = min(back, amount)
            if part:
                give(entry.limit, counter, position, part)
                entry.taken[index] = (position, amount - part)
                back -= part


class LocalLimiter:
    """`LocalCounts` as a limiter of one process alone, which `replicas` makes its share of all."""

    def __init__(self, clock: Clock, replicas: int = 1) -> None:
        self._clock = clock
        self._counts = LocalCounts()
        self._noted: OrderedDict[str, tuple[int, int]] = OrderedDict()  # what was used, and when that was
        self.replicas = replicas

    def clear(self) -> None:
        self._counts.clear()

    def note(self, charges: Sequence[Charge], states: Sequence[State]) -> None:
        """What was left of the limits, all replicas together: this one's share begins there, should it come to that."""
        now_ms = self._now_ms()
        for charge, left in zip(charges, states, strict=True):
            self._noted[charge.key] = (charge.limit.amount - left.remaining, now_ms)
            self._noted.move_to_end(charge.key)
        while len(self._noted) > CAPACITY:
            self._noted.popitem(last=False)

    async def reserve(self, reservation: str, charges: Sequence[Charge], ttl_s: float, lost: Lost) -> Admission:
        # Never expires: its owner lives as long as this does.
        return self._counts.reserve(reservation, self._shares(charges), 0, self._now_ms())

    async def attempt(self, charges: Sequence[Charge], lost: Lost) -> Admission:
        return self._counts.reserve("", self._shares(charges), 0, self._now_ms())

    async def extend(self, reservation: str, more: Sequence[int]) -> bool:
        return self._counts.extend(reservation, more, self._now_ms()) is not False

    async def settle(self, reservation: str, actual: Sequence[int]) -> None:
        self._counts.settle(reservation, actual, self._now_ms())

    def _shares(self, charges: Sequence[Charge]) -> list[Charge]:
        """What fits the limit shall fit the share too, if only when nothing else is in it."""
        shares = [(charge, charge.limit.share(self.replicas)) for charge in charges]
        for charge, own in shares:
            self._begin(charge, own)
        if self.replicas <= 1:
            return list(charges)
        return [
            Charge(charge.key, own, min(charge.cost, own.amount), min(charge.floor, own.amount))
            if charge.cost <= charge.limit.most
            else charge
            for charge, own in shares
        ]

    def _begin(self, charge: Charge, own: Limit) -> None:
        noted = self._noted.get(charge.key)
        if noted is not None and not self._counts.knows(charge.key):
            used, at_ms = noted
            self._counts.begin(charge.key, used_before(own, -(-used // self.replicas), at_ms))

    def _now_ms(self) -> int:
        return int(self._clock.wall() * 1000)
