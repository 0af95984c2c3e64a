"""The last requests this service accounted for, and what each team spent since it started: facts, never content.

Fed with usage events on their way to the ledger. Bounded, whatever comes. Its methods may be called from any thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from extproc.usage_summary import Usage

KEPT = 50
MOST_TEAMS = 500
OTHERS = "(others)"
"""Where what is spent by teams beyond the first `MOST_TEAMS` is counted."""


class Decision(Struct, frozen=True, kw_only=True):
    """One request that is over. `time` is Unix seconds, `reason` why it was refused or ended early, if it was."""

    time: float
    team: str
    principal: str
    model: str
    pool: str
    arm: str
    status: int
    termination: str
    reason: str
    cache: str
    prompt_tokens: int
    completion_tokens: int
    duration_ms: float | None
    ttft_ms: float | None


class Decisions:
    """Of one service."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[Decision] = deque(maxlen=KEPT)
        self._teams: dict[str, Usage] = {}

    def heard(self, events: Sequence[Mapping[str, Any]]) -> None:
        """These have reached the ledger. One that can't be read is left out."""
        with self._lock:
            for event in events:
                try:
                    decision = _decision(event)
                    self._usage(decision.team).add(event)
                except (TypeError, ValueError, OverflowError):
                    continue
                self._recent.append(decision)

    def recent(self) -> tuple[Decision, ...]:
        """The newest first."""
        with self._lock:
            return tuple(reversed(self._recent))

    def spent(self, most: int) -> list[tuple[str, int, int, dict[str, int]]]:
        """Team, requests, tokens and cost in billionths by currency, of the `most` teams that used most."""
        with self._lock:
            found = [
                (team, one.requests, one.prompt_tokens + one.completion_tokens, dict(one.cost_nano))
                for team, one in self._teams.items()
            ]
        return sorted(found, key=lambda one: (-max(one[3].values(), default=0), -one[2], one[0]))[:most]

    def _usage(self, team: str) -> Usage:
        if team not in self._teams and len(self._teams) >= MOST_TEAMS:
            team = OTHERS
        return self._teams.setdefault(team, Usage())


def _decision(event: Mapping[str, Any]) -> Decision:
    def text(name: str) -> str:
        return str(event.get(name) or "")[:128]

    def number(name: str) -> float | None:
        return None if event.get(name) is None else float(event[name])

    return Decision(
        time=float(event["time"]),
        team=text("team"),
        principal=text("principal"),
        model=text("model"),
        pool=text("pool"),
        arm=text("arm"),
        status=int(event.get("status") or 0),
        termination=text("termination").lower(),
        reason=text("reason"),
        cache=text("cache"),
        prompt_tokens=int(event.get("prompt_tokens") or 0),
        completion_tokens=int(event.get("completion_tokens") or 0),
        duration_ms=number("duration_ms"),
        ttft_ms=number("ttft_ms"),
    )
