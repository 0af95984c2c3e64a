"""Experiments: which arm a subject gets, with which weights. Pure, but for the protocol of what changes while running.

Assignment is weighted rendezvous hashing: each arm draws an exponential lot, -ln(u) / weight with u hashed from salt,
subject and arm; the least lot takes the subject. It keeps no state, and

- of two arms, a change of weights moves exactly the share by which they differ;
- of more, a subject only ever moves to an arm whose weight grew in relation to that of the one it leaves, and the share
  that moves is at most 2d / (1 + d) where d is the least that has to; no stateless rule can promise less (Bavarian et
  al., "The Optimality of Correlated Sampling"; the rule itself: Thaler and Ravishankar 1998, Moulton and Jiang 2018).

Must not know: Redis, the request.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct, field

from extproc.config.experiments import Experiment as Settings
from extproc.config.experiments import Mirror, Sticky, Testers
from extproc.config.rules import Target

_SUBJECT_BYTES = 8
_UNIT = 2.0**-64
Weights = Mapping[str, float]


class Change(Struct, frozen=True):
    """What was said of an experiment while it runs: by a person (`extproc ab set`), or by a guardrail.

    It holds for the experiment as it was described then (`fingerprint`): another description in gateway.yaml is the
    newer word. `since_s`: from when on it is compared, the last time that a person said something. `pulled`: the arms
    that a guardrail took out, each with why.
    """

    fingerprint: str
    weights: dict[str, float]
    by: str
    time_s: float
    since_s: float
    pulled: dict[str, str] = field(default_factory=dict)


class Changes(Protocol):
    """What was said while running, as far as this process has heard."""

    def of(self, experiment: str) -> Change | None:
        """The latest."""


class NoChanges:
    """Nobody says anything while running."""

    def of(self, experiment: str) -> Change | None:
        return None


class Arm(Struct, frozen=True):
    """One alternative."""

    name: str
    to: Target


class Experiment(Struct, frozen=True):
    """One experiment, ready for use. `steps`: the weights from each moment (Unix seconds) on, in order."""

    name: str
    fingerprint: str
    salt: str
    sticky: Sticky
    header: str | None
    testers: Testers
    arms: Mapping[str, Arm]
    steps: tuple[tuple[float, Weights], ...]
    mirror: Mirror | None = None

    def is_mirrored(self, request_id: str) -> bool:
        """Whether the mirror gets a copy of this request."""
        if self.mirror is None or not request_id:
            return False
        drawn = int.from_bytes(self._digest(request_id, "/mirror")) * _UNIT
        return drawn * 100 < self.mirror.percent

    def configured(self, now_s: float) -> Weights:
        """The weights by gateway.yaml alone."""
        return self.steps[max(0, bisect.bisect_right(self.steps, now_s, key=lambda step: step[0]) - 1)][1]

    def in_force(self, change: Change | None, now_s: float) -> Weights:
        """The weights now."""
        if change is None or change.fingerprint != self.fingerprint:
            return self.configured(now_s)
        return change.weights

    def assign(self, subject: str, weights: Weights) -> str:
        """The arm of a subject. Some weight is more than 0."""
        lots = ((self._lot(subject, arm) / weight, arm) for arm, weight in weights.items() if weight > 0)
        return min(lots)[1]

    def _lot(self, subject: str, arm: str) -> float:
        """Exponential with mean 1, always the same for the same three."""
        return -math.log((int.from_bytes(self._digest(subject, arm)) + 0.5) * _UNIT)

    def _digest(self, subject: str, purpose: str) -> bytes:
        # Lengths first, so that no two triples are written alike.
        text = f"{len(self.salt)}:{len(purpose)}:{self.salt}{purpose}{subject}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_SUBJECT_BYTES).digest()

    def pseudonym(self, subject: str) -> str:
        """Stands for the subject in the ledger: equal for equal subjects, within this experiment."""
        return self._digest(subject, "/").hex()

    def chosen_by_tester(self, principal: str, team: str, headers: Mapping[str, str]) -> str | None:
        """The arm that this caller is given, or may and does ask for."""
        testers = self.testers
        pinned = testers.pinned.get(principal)
        if pinned is not None:
            return pinned
        if testers.header is None or not (principal in testers.principals or team in testers.teams):
            return None
        asked = headers.get(testers.header)
        return asked if asked in self.arms else None


def experiment_of(name: str, settings: Settings) -> Experiment:
    """An experiment of gateway.yaml."""
    weights: dict[str, float] = {arm: own.weight for arm, own in settings.arms.items()}
    steps: list[tuple[float, Weights]] = [(-math.inf, dict(weights))]
    for step in settings.ramp:
        weights |= step.weights
        steps.append((step.at.timestamp(), dict(weights)))
    return Experiment(
        name,
        settings.fingerprint,
        settings.salt or name,
        settings.sticky,
        settings.header,
        settings.testers,
        {arm: Arm(arm, Target(pool=own.pool, model=own.model)) for arm, own in settings.arms.items()},
        tuple(steps),
        settings.mirror,
    )
