"""When an arm is given up: its guardrails, over all of its requests so far.

Requests are taken as independent; the tests are those of `sequential`, so they may be looked at as often as one likes.
Must not know: where outcomes come from, or how an arm is taken out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from extproc.config.experiments import Experiment, Guardrail, GuardrailMetric
from extproc.experiments.outcomes import Outcome
from extproc.experiments.sequential import Counts, evidence_above, evidence_worse

_SLOW_SHARE = 0.05


class Tally:
    """Trials and hits of each guardrail (by its place in the configuration) and arm. Constant memory."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._counts = {
            (place, arm): Counts(0, 0) for place in range(len(experiment.guardrails)) for arm in experiment.arms
        }

    def add(self, outcome: Outcome) -> None:
        """One more request; what a tester sent counts for nothing."""
        if outcome.chosen or outcome.arm not in self._experiment.arms:
            return
        for place, guardrail in enumerate(self._experiment.guardrails):
            hit = _hit(guardrail, outcome)
            if hit is not None:
                seen = self._counts[place, outcome.arm]
                self._counts[place, outcome.arm] = Counts(seen.hits + hit, seen.total + 1)

    def broken(self) -> Mapping[str, str]:
        """The arms that broke a guardrail, and which it was, in words."""
        found: dict[str, str] = {}
        control = self._experiment.control
        for (place, arm), counts in self._counts.items():
            guardrail = self._experiment.guardrails[place]
            if arm == control or counts.total < guardrail.min_requests:
                continue
            if _evidence(guardrail, self._counts[place, control], counts) >= -math.log(guardrail.alpha):
                found.setdefault(arm, _words(guardrail, self._counts[place, control], counts))
        return found


def _hit(guardrail: Guardrail, outcome: Outcome) -> bool | None:
    """None: the request says nothing about it."""
    match guardrail.metric:
        case GuardrailMetric.ERROR_RATE:
            return outcome.failed
        case GuardrailMetric.GUARD_RATE:
            return outcome.guarded
        case GuardrailMetric.P95_LATENCY_MS:
            assert guardrail.above is not None, "the configuration was checked"
            return None if outcome.latency_ms is None else outcome.latency_ms > guardrail.above


def _evidence(guardrail: Guardrail, control: Counts, arm: Counts) -> float:
    """The log of the evidence that it is broken. A 95th percentile is above a limit where more than 5 % are."""
    if guardrail.metric is GuardrailMetric.P95_LATENCY_MS:
        return evidence_above(arm, _SLOW_SHARE)
    if guardrail.above is not None:
        return evidence_above(arm, guardrail.above)
    assert guardrail.worse_by is not None, "the configuration was checked"
    return evidence_worse(control, arm, guardrail.worse_by)


def _words(guardrail: Guardrail, control: Counts, arm: Counts) -> str:
    if guardrail.metric is GuardrailMetric.P95_LATENCY_MS:
        limit = f"{guardrail.above:g} ms exceeded by {arm.rate:.1%}"
    elif guardrail.above is not None:
        limit = f"{arm.rate:.4f}, above {guardrail.above:g}"
    else:
        limit = f"{arm.rate:.4f}, more than {guardrail.worse_by:g} above the control's {control.rate:.4f}"
    return f"{guardrail.metric} {limit}, {arm.total} requests"
