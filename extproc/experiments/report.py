"""What an experiment shows: each arm by itself, and against the control.

Observations are each subject's first (`Unit.SUBJECT`, the default), because what was drawn at random is a subject: its
requests are alike, and to count each would make chance look like proof. Intervals and p-values are those of
`sequential`. Must not know: where records come from, or how a report is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from extproc.experiments import sequential
from extproc.experiments.outcomes import Outcome, outcome_of, rating_of
from extproc.experiments.sequential import Counts, Interval

_LEVELS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_NANO = 1e-9
Value = Callable[[Outcome], float | None]


class Unit(StrEnum):
    """What one observation is."""

    SUBJECT = "subject"
    REQUEST = "request"


class Measured(Struct, frozen=True):
    """One metric of one arm. `difference` and `p` are against the control, and are corrected for the number of arms;
    a percentile has no interval of its difference."""

    observations: int
    value: float | None
    interval: Interval
    difference: float | None = None
    difference_interval: Interval | None = None
    p: float | None = None


class ArmReport(Struct):
    """One arm. `requests` are all of it but those of testers; tokens and cost are theirs, however they ended."""

    name: str
    requests: int = 0
    by_testers: int = 0
    subjects: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Measured] = field(default_factory=dict)


class Observations:
    """The outcomes of one experiment, arm by arm."""

    def __init__(self, experiment: str, arms: Iterable[str], since_s: float, until_s: float) -> None:
        self._experiment = experiment
        self._since_s, self._until_s = since_s, until_s
        self.outcomes: dict[str, list[Outcome]] = {arm: [] for arm in arms}
        self.ratings: dict[tuple[str, str], float] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """One usage record, of whatever. Raises ValueError for one that can't be read."""
        rating = rating_of(record)
        if rating is not None:
            self.ratings[rating.request, rating.team] = rating.score  # a user's last word
            return
        outcome = outcome_of(record, self._experiment)
        if outcome is not None and self._since_s <= outcome.time_s < self._until_s:
            self.outcomes.setdefault(outcome.arm, []).append(outcome)

    @property
    def size(self) -> int:
        """How many outcomes and ratings are kept."""
        return len(self.ratings) + sum(map(len, self.outcomes.values()))

    def report(self, control: str, unit: Unit, alpha: float) -> list[ArmReport]:
        """One for each arm, the control first."""
        names = [control, *(arm for arm in self.outcomes if arm != control)]
        return [self._arm(name, control, unit, alpha, max(1, len(names) - 1)) for name in names]

    def _arm(self, name: str, control: str, unit: Unit, alpha: float, comparisons: int) -> ArmReport:
        counted = [one for one in self.outcomes[name] if not one.chosen]
        report = ArmReport(name, len(counted), len(self.outcomes[name]) - len(counted))
        report.subjects = len({one.subject for one in counted})
        report.prompt_tokens = sum(one.prompt_tokens for one in counted)
        report.completion_tokens = sum(one.completion_tokens for one in counted)
        for one in counted:
            if one.currency:
                report.cost[one.currency] = report.cost.get(one.currency, 0.0) + one.cost_nano * _NANO
        against = None if name == control else [one for one in self.outcomes[control] if not one.chosen]
        test = _Comparison(unit, alpha, comparisons)
        for metric, rate in _RATES.items():
            report.metrics[metric] = test.rates(counted, against, rate)
        for metric, value in _TIMES.items():
            for level in _LEVELS:
                report.metrics[f"{metric}_{level}"] = test.quantiles(counted, against, value, _LEVELS[level])
        means = {**_MEANS, "feedback_score": self._rating}
        if len({one.currency for arm in self.outcomes.values() for one in arm if one.currency}) > 1:
            del means["cost"]  # amounts of different currencies have no mean
        for metric, value in means.items():
            report.metrics[metric] = test.means(counted, against, value)
        return report

    def _rating(self, one: Outcome) -> float | None:
        """What a user said of the arm's answer; another pool's is none of its merit."""
        return None if one.failed else self.ratings.get((one.id, one.team))


_RATES: Mapping[str, Value] = {
    "error_rate": lambda one: one.failed,
    "guard_rate": lambda one: one.guarded,
    "cache_hit_rate": lambda one: one.cached,
}
_TIMES: Mapping[str, Value] = {
    "latency_ms": lambda one: one.latency_ms,
    "ttft_ms": lambda one: one.ttft_ms,
}
_MEANS: Mapping[str, Value] = {
    "completion_tokens": lambda one: one.completion_tokens if one.is_whole else None,
    "cost": lambda one: one.cost_nano * _NANO if one.currency and one.failed is False else None,
}


class _Comparison(Struct, frozen=True):
    """How arms are compared: an arm's observations with those of the control, which itself is compared with none."""

    unit: Unit
    alpha: float
    comparisons: int

    def rates(self, arm: list[Outcome], control: list[Outcome] | None, value: Value) -> Measured:
        mine = _counts(self._values(arm, value))
        interval = sequential.rate_interval(mine, self.alpha)
        alone = Measured(mine.total, mine.rate if mine.total else None, interval)
        if control is None:
            return alone
        theirs = _counts(self._values(control, value))
        if not (mine.total and theirs.total):
            return alone
        between = sequential.difference_interval(theirs, mine, self.alpha / self.comparisons)
        p = self._p(sequential.evidence_of_difference(theirs, mine, 0.0))
        return Measured(mine.total, mine.rate, interval, mine.rate - theirs.rate, between, p)

    def quantiles(self, arm: list[Outcome], control: list[Outcome] | None, value: Value, level: float) -> Measured:
        mine = sorted(self._values(arm, value))
        if not mine:
            return Measured(0, None, Interval(0.0, float("inf")))
        own = sequential.quantile(mine, level)
        interval = sequential.quantile_interval(mine, level, self.alpha)
        theirs = [] if control is None else sorted(self._values(control, value))
        if not theirs:
            return Measured(len(mine), own, interval)
        p = self._p(sequential.evidence_of_quantiles(theirs, mine, level))
        return Measured(len(mine), own, interval, own - sequential.quantile(theirs, level), None, p)

    def means(self, arm: list[Outcome], control: list[Outcome] | None, value: Value) -> Measured:
        mine = sequential.moments(self._values(arm, value))
        interval = sequential.mean_interval(mine, self.alpha)
        alone = Measured(mine.total, mine.mean if mine.total else None, interval)
        if control is None:
            return alone
        theirs = sequential.moments(self._values(control, value))
        if not (mine.total and theirs.total):
            return alone
        between = sequential.mean_difference_interval(theirs, mine, self.alpha / self.comparisons)
        p = self._p(sequential.evidence_of_means(theirs, mine))
        return Measured(mine.total, mine.mean, interval, mine.mean - theirs.mean, between, p)

    def _p(self, evidence: float) -> float:
        return min(1.0, self.comparisons * sequential.p_value(evidence))

    def _values(self, outcomes: list[Outcome], value: Value) -> list[float]:
        """In the order of time."""
        told = [(one, number) for one in sorted(outcomes, key=_by_time) if (number := value(one)) is not None]
        if self.unit is Unit.REQUEST:
            return [number for _, number in told]
        first: dict[str, float] = {}
        for one, number in told:
            first.setdefault(one.subject, number)
        return list(first.values())


def _by_time(outcome: Outcome) -> tuple[float, str]:
    return outcome.time_s, outcome.id


def _counts(values: list[float]) -> Counts:
    return Counts(int(sum(values)), len(values))
