"""The vocabulary of admission: classes of priority, the line before a pool, and who stands in it.

Shared by the policy, which decides who may ask for what, and the stores, which keep the line. A line's capacity is
counted in requests and in tokens (prompt and expected answer). Knows nothing of Redis or of HTTP.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from extproc.limits import Lost

UNIT = 100
"""A class's turn advances by `tokens * UNIT / weight`, rounded up, so that all of it stays in whole numbers."""

MOST_TOKENS = 1 << 24
"""No request weighs more than this, whatever it claims."""


class Priority(IntEnum):
    """How much it matters that a request is served soon."""

    P0 = 0
    """Real-time: somebody waits for every word."""
    P1 = 1
    """Near-real-time."""
    P2 = 2
    """Batch."""
    P3 = 3
    """Background."""


LEVELS = len(Priority)


class Line(Struct, frozen=True):
    """What holds before one pool.

    `requests[c]` and `tokens[c]` bound what class c and all classes below it use together; so those of P0 are the
    pool's whole capacity, and none is larger than the one before it. 0: no bound. `weights` say how the classes share
    what is free, `length` how many may wait. A ticket without a sign of life for `lease_ms` is given up.
    """

    pool: str
    requests: tuple[int, ...]
    tokens: tuple[int, ...]
    weights: tuple[int, ...]
    length: int
    lease_ms: int

    def share(self, replicas: int) -> Line:
        """What one of `replicas` keeps on its own; never nothing."""
        if replicas <= 1:
            return self
        requests = tuple(bound and max(1, bound // replicas) for bound in self.requests)
        tokens = tuple(bound and max(1, bound // replicas) for bound in self.tokens)
        return replace(self, requests=requests, tokens=tokens, length=-(-self.length // replicas))


class Ticket(Struct, frozen=True):
    """One request. `tokens` is what it will use, 1 or more; it waits for `wait_ms` at most."""

    id: str
    priority: Priority
    tokens: int
    principal: str
    wait_ms: int


class Standing(IntEnum):
    """Where a ticket stands; the numbers are known to the scripts in `stores/lua`."""

    UNKNOWN = 0
    WAITING = 1
    RUNNING = 2
    """It has its slot."""
    SHED = 3
    """It was sent away, because the line was full and others came first."""
    LATE = 4
    """It waited for as long as it may."""
    LOST = 5
    """Nobody keeps the line any more."""


class Entry(Struct, frozen=True):
    """What became of a ticket that was handed in. `position` is 1 for who waits first, 0 for who doesn't wait.
    `shared`: Redis is lost, and this is this replica's share of the pool."""

    standing: Standing
    position: int = 0
    shared: bool = False


class Use(Struct, frozen=True):
    """What is in use and who waits, by class."""

    requests: tuple[int, ...]
    tokens: tuple[int, ...]
    waiting: tuple[int, ...]


class Admissions(Protocol):
    """Where lines are kept. Every ticket that was handed in must be handed back."""

    async def enter(self, line: Line, ticket: Ticket, lost: Lost) -> Entry:
        """Take a slot, or a place in the line. Raises DependencyError when Redis is lost and `lost` says closed."""

    async def turn(self, ticket_id: str, timeout_s: float) -> Standing:
        """Wait for one's turn: RUNNING, SHED, LATE or LOST."""

    async def leave(self, ticket_id: str) -> None:
        """Hand the ticket back, whatever it stood for. Only the first call counts; never fails."""


class OpenDoor:
    """Admissions without lines: everybody gets in."""

    async def enter(self, line: Line, ticket: Ticket, lost: Lost) -> Entry:
        return Entry(Standing.RUNNING)

    async def turn(self, ticket_id: str, timeout_s: float) -> Standing:
        return Standing.RUNNING

    async def leave(self, ticket_id: str) -> None:
        pass
