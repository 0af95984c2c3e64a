"""The line before a pool in the memory of one process: the reference for the one in Redis, and what goes on without it.

Who is next is decided twice. Among classes by weighted fair queueing: each class has a turn, which what it is given
moves on by `tokens / weight`, and the one that would end up smallest goes first. Within a class by self-clocked fair
queueing: a request is tagged, when it comes, with where its principal's work would end if all principals were served
alike; the smallest tag goes first, so whoever asks for much stands behind who asks for little.

A request that has no room holds back everybody who would take from the room it waits for: those of the classes whose
bound is reached. So large requests are not passed for ever by small ones. A class that is passed over because of its
bound saves nothing up: its turn moves along.

The same operations with the same results as the scripts `lua/admit*.lua`; a property test holds the two together.
Pure. Must not know: Redis, clocks.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from extproc.admission import LEVELS, UNIT, Entry, Line, Standing, Ticket, Use


class _Held(Struct):
    """`tag` orders it among those of its class while it waits; `counted` tokens are what it uses while it runs."""

    ticket: Ticket
    deadline_ms: int
    expires_ms: int
    standing: Standing = Standing.WAITING
    tag: int = 0
    counted: int = 0


class FairLine:
    """One pool's. `tell(ticket id, standing)` is called for who is let in or sent away later than on entering."""

    def __init__(self, tell: Callable[[str, Standing], None] = lambda _id, _standing: None) -> None:
        self._tell = tell
        self._held: dict[str, _Held] = {}
        self._requests = [0] * LEVELS
        self._tokens = [0] * LEVELS
        self._waiting: list[list[tuple[int, str]]] = [[] for _ in range(LEVELS)]  # (tag, id), in order
        self._turns = [0] * LEVELS
        self._now = 0  # the latest turn that was taken: nobody begins behind it
        self._passed = [0] * LEVELS  # the last tag that was served
        self._ends: list[dict[str, int]] = [{} for _ in range(LEVELS)]  # the last tag of each principal

    def enter(self, line: Line, ticket: Ticket, now_ms: int, *, forced: bool = False) -> Entry:
        """Hand a ticket in; the same one again changes nothing. `forced`: it runs already, whatever there is room
        for."""
        held = self._held.get(ticket.id)
        if held is None:
            held = self._held[ticket.id] = _Held(ticket, now_ms + ticket.wait_ms, now_ms + line.lease_ms)
            self._queue(held)
        if forced and held.standing is Standing.WAITING:
            self._unqueue(held)
            self._run(line, held)
        self._pump(line, now_ms, quiet=ticket.id)
        if sum(map(len, self._waiting)) > line.length:
            self._shed()
            self._pump(line, now_ms, quiet=ticket.id)
        return self._entry(ticket.id)

    def leave(self, line: Line, ticket_id: str, now_ms: int) -> Standing:
        """Hand it back; what it stood for."""
        held = self._held.get(ticket_id)
        if held is None:
            return Standing.UNKNOWN
        self._remove(held)
        self._pump(line, now_ms)
        return held.standing

    def beat(self, line: Line, own: Sequence[str], now_ms: int, *, reap: bool) -> list[Standing]:
        """Keep one's own tickets; where they stand. `reap`: hand back those that nobody keeps."""
        for one in own:
            if one in self._held:
                self._held[one].expires_ms = now_ms + line.lease_ms
        if reap:
            for held in [held for held in self._held.values() if held.expires_ms <= now_ms]:
                self._remove(held)
        self._pump(line, now_ms)
        return [self.standing(one) for one in own]

    def standing(self, ticket_id: str) -> Standing:
        held = self._held.get(ticket_id)
        return Standing.UNKNOWN if held is None else held.standing

    @property
    def use(self) -> Use:
        return Use(tuple(self._requests), tuple(self._tokens), tuple(map(len, self._waiting)))

    def _entry(self, ticket_id: str) -> Entry:
        held = self._held.get(ticket_id)
        if held is None:
            return Entry(Standing.SHED)
        if held.standing is Standing.RUNNING:
            return Entry(Standing.RUNNING)
        level = held.ticket.priority
        ahead = sum(len(self._waiting[better]) for better in range(level))
        return Entry(Standing.WAITING, ahead + bisect.bisect_left(self._waiting[level], (held.tag, ticket_id)) + 1)

    def _queue(self, held: _Held) -> None:
        level, principal = held.ticket.priority, held.ticket.principal
        if not self._waiting[level]:
            self._turns[level] = max(self._turns[level], self._now)
        held.tag = max(self._passed[level], self._ends[level].get(principal, 0)) + held.ticket.tokens
        self._ends[level][principal] = held.tag
        bisect.insort(self._waiting[level], (held.tag, held.ticket.id))

    def _unqueue(self, held: _Held) -> None:
        level = held.ticket.priority
        self._waiting[level].remove((held.tag, held.ticket.id))

    def _pump(self, line: Line, now_ms: int, quiet: str = "") -> None:
        """Let in all there is room for. `quiet` asks right now, and needn't be told."""
        while self._let_one_in(line, now_ms, quiet):
            pass
        if not any(self._waiting):
            self._turns, self._now, self._passed = [0] * LEVELS, 0, [0] * LEVELS
            for ends in self._ends:
                ends.clear()

    def _let_one_in(self, line: Line, now_ms: int, quiet: str) -> bool:
        """Whether the line has changed."""
        barrier = LEVELS  # this class and those below it are held back
        passed_over: list[int] = []
        for _, level, held in sorted(self._heads(line), key=lambda head: head[:2]):
            passed_over.append(level)
            if level >= barrier:
                continue
            if held.deadline_ms < now_ms:
                self._send_away(held, Standing.LATE)
                return True
            reached = self._reached(line, level, _counted(line, held.ticket))
            if reached is None:
                self._serve(line, held, quiet)
                for other in passed_over:
                    self._turns[other] = max(self._turns[other], self._now)
                return True
            barrier = min(barrier, reached)
        return False

    def _heads(self, line: Line) -> Iterator[tuple[int, int, _Held]]:
        """Of each class that waits: where its turn would be after its first request, the class, and that request."""
        for level, waiting in enumerate(self._waiting):
            if waiting:
                held = self._held[waiting[0][1]]
                yield self._turns[level] + _step(line, held.ticket), level, held

    def _reached(self, line: Line, level: int, tokens: int) -> int | None:
        """The first class whose bound has no room for one more of class `level`."""
        for at in range(level + 1):
            requests, used = sum(self._requests[at:]) + 1, sum(self._tokens[at:]) + tokens
            if 0 < line.requests[at] < requests or 0 < line.tokens[at] < used:
                return at
        return None

    def _serve(self, line: Line, held: _Held, quiet: str) -> None:
        level = held.ticket.priority
        self._unqueue(held)
        self._now = max(self._now, self._turns[level])
        self._turns[level] += _step(line, held.ticket)
        passed = self._passed[level] = max(self._passed[level], held.tag)
        self._ends[level] = {name: end for name, end in self._ends[level].items() if end > passed}
        self._run(line, held)
        if held.ticket.id != quiet:
            self._tell(held.ticket.id, Standing.RUNNING)

    def _run(self, line: Line, held: _Held) -> None:
        held.standing, held.counted = Standing.RUNNING, _counted(line, held.ticket)
        self._requests[held.ticket.priority] += 1
        self._tokens[held.ticket.priority] += held.counted

    def _shed(self) -> None:
        """The last of the lowest class: of whoever asked for most."""
        waiting = next(waiting for waiting in reversed(self._waiting) if waiting)
        self._send_away(self._held[waiting[-1][1]], Standing.SHED)

    def _send_away(self, held: _Held, why: Standing) -> None:
        self._remove(held)
        self._tell(held.ticket.id, why)

    def _remove(self, held: _Held) -> None:
        level, principal = held.ticket.priority, held.ticket.principal
        del self._held[held.ticket.id]
        if held.standing is Standing.RUNNING:
            self._requests[level] -= 1
            self._tokens[level] -= held.counted
            return
        self._unqueue(held)
        if self._ends[level].get(principal) == held.tag:  # what it never got doesn't count against its principal
            self._ends[level][principal] = held.tag - held.ticket.tokens


def _step(line: Line, ticket: Ticket) -> int:
    """How far it moves its class's turn."""
    return -(-ticket.tokens * UNIT // line.weights[ticket.priority])


def _counted(line: Line, ticket: Ticket) -> int:
    """What it takes of the pool's tokens. One that is larger than its class may be is let in when it is alone."""
    bound = line.tokens[ticket.priority]
    return min(ticket.tokens, bound) if bound else ticket.tokens
