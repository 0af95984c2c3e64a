"""Admission: a request takes a slot of its pool, or waits for one in a fair line, for so long.

It comes after `limit`, so that who has no tokens left takes no place; what a request reserved there is given back when
it is refused here, for it never came to be charged. Envoy has no message timeout meanwhile (docs/architecture.md).
"""

from __future__ import annotations

import math
import re
from typing import ClassVar

from extproc.admission import MOST_TOKENS, Line, Priority, Standing, Ticket
from extproc.config.policy import PolicyMode, PolicySettings
from extproc.errors import DependencyError
from extproc.policies.admit_place import Place
from extproc.policies.admit_settings import Settings
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Reject, Services, Termination, Verdict
from extproc.policies.limit_expected import expected_tokens
from extproc.rejection import Rejection, invalid_request, overloaded

HEADER = "x-extproc-priority"
LONGEST_RETRY_S = 120
_ASKED = re.compile(r"[Pp][0-3]")


class Admit:
    """The policy `admit`."""

    name: ClassVar[str] = "admit"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._admissions = services.admissions
        self._clock = services.clock
        self._metrics = services.metrics.admission
        self._enforced = settings.mode is PolicyMode.ENFORCE
        self._lines = {pool: settings.line(pool) for pool in settings.pools}

    async def on_request(self, ctx: RequestContext) -> Verdict:
        line = None if ctx.pool is None else self._lines.get(ctx.pool.name)
        if line is None:
            return CONTINUE
        asked = ctx.head.headers.get(HEADER, "").strip()
        if asked and not _ASKED.fullmatch(asked):
            return Reject(invalid_request(f"Invalid header '{HEADER}': it takes P0, P1, P2 or P3.", HEADER))
        right = self._settings.tiers.of(ctx.principal.tier)
        # A larger number is a lower class, and nobody gets a better one than is theirs.
        priority = max(right, Priority[asked.upper()]) if asked else right
        ctx.place = place = Place(priority, ctx.request_id)
        return await self._admit(ctx, line, place)

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        if ctx.place is not None:
            await self._admissions.leave(ctx.place.ticket)

    async def _admit(self, ctx: RequestContext, line: Line, place: Place) -> Verdict:
        wait_s = self._settings.classes.waits_s[place.priority]
        weight = min(MOST_TOKENS, max(1, expected_tokens(ctx)))
        ticket = Ticket(place.ticket, place.priority, weight, ctx.principal.id, int(wait_s * 1000))
        entry = await self._admissions.enter(line, ticket, self._settings.redis_lost)
        if entry.shared:
            ctx.degraded.add(self.name)
        place.position = entry.position
        if entry.standing is not Standing.WAITING:
            return self._decide(line, place, entry.standing)
        self._metrics.queued(place.priority.name, entry.position)
        if not self._enforced:
            return CONTINUE
        return await self._wait(ctx, line, place, wait_s)

    async def _wait(self, ctx: RequestContext, line: Line, place: Place, wait_s: float) -> Verdict:
        began_s = self._clock.monotonic()
        standing = Standing.UNKNOWN  # its client leaves
        try:
            standing = await self._admissions.turn(place.ticket, wait_s)
        finally:
            place.waited_s = self._clock.monotonic() - began_s
            self._metrics.waited(place.priority.name, place.waited_s)
            if standing is Standing.UNKNOWN:
                self._metrics.ended(line.pool, place.priority.name, "left")
        # What a request waits for its turn is no time that this service takes for it.
        ctx.progress.overhead_s -= place.waited_s
        return self._decide(line, place, standing)

    def _decide(self, line: Line, place: Place, standing: Standing) -> Verdict:
        waited = place.position > 0
        if standing is Standing.RUNNING:
            self._metrics.ended(line.pool, place.priority.name, "waited" if waited else "at_once")
            return CONTINUE
        if standing is Standing.LOST:
            raise DependencyError(self.name, "Redis is lost, and without it nothing may pass")
        if standing is Standing.SHED:
            outcome, message = ("shed", _SHED) if waited else ("full", _FULL)
        else:
            outcome, message = "too_long", _TOO_LONG
        self._metrics.ended(line.pool, place.priority.name, outcome)
        return Reject(self._refusal(place.priority, outcome, message))

    def _refusal(self, priority: Priority, outcome: str, message: str) -> Rejection:
        """The lower the class, the longer it is told to stay away: as long as it would have waited here."""
        wait_s = self._settings.classes.waits_s[priority]
        return overloaded(message, f"queue_{outcome}", min(LONGEST_RETRY_S, max(1, math.ceil(wait_s))))


_FULL = "The model is busy, and too many requests wait for it already."
_SHED = "The model is busy, and more urgent requests took this one's place."
_TOO_LONG = "The model is busy, and this request waited for as long as it may."
