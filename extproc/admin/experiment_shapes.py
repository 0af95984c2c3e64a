"""What the admin API takes and gives of experiments, as types: their JSON Schema is in `/openapi.json`.

Must not know: where any of it comes from.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from extproc.admin.endpoints import Input
from extproc.admin.shapes import END, Since, Until
from extproc.experiments.report import Unit

Name = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9_-]{{0,62}}{END}", description="As in gateway.yaml.")]
Weight = Annotated[float, Meta(ge=0, le=1_000_000)]
Alpha = Annotated[float, Meta(ge=1e-6, le=0.5, description="The chance of ever being wrong.")]


class OneExperiment(Input, frozen=True, kw_only=True):
    """The experiment that is meant."""

    experiment: Name


class NewWeights(Input, frozen=True, kw_only=True):
    """Other weights; arms that are not named keep theirs."""

    experiment: Name
    weights: Annotated[dict[Name, Weight], Meta(min_length=1, max_length=16)]


class WhichReport(Input, frozen=True, kw_only=True):
    """Which requests to compare: by default those since the experiment is as it is. An observation is a subject's first
    request, or each (`unit`)."""

    experiment: Name
    since: Since | UnsetType = UNSET
    until: Until | UnsetType = UNSET
    unit: Unit = Unit.SUBJECT
    alpha: Alpha = 0.05


class ArmInForce(Struct, frozen=True, kw_only=True):
    """One arm: the pool or the model behind it, its weight now, and its share of the weights. `taken_out`: why a
    guardrail did that."""

    name: str
    pool: str | None
    model: str | None
    weight: float
    share: float
    taken_out: str | None


class Guardrail(Struct, frozen=True, kw_only=True):
    """What takes an arm out: its metric above a limit, or worse than the control's by so much."""

    metric: str
    above: float | None
    worse_by: float | None
    min_requests: int
    alpha: float


class Experiment(Struct, frozen=True, kw_only=True):
    """One experiment. `by`: whose word the weights are (`gateway.yaml`, `ab set`, `admin-api`, `guardrail`).

    `outdated`: whose word they were until gateway.yaml described it anew; null where there is no such.
    """

    name: str
    control: str
    sticky: str
    by: str
    outdated: str | None
    arms: tuple[ArmInForce, ...]
    guardrails: tuple[Guardrail, ...]


class Experiments(Struct, frozen=True, kw_only=True):
    """All that gateway.yaml has, in its order."""

    experiments: tuple[Experiment, ...]


class Interval(Struct, frozen=True, kw_only=True):
    """null: no bound."""

    low: float | None
    high: float | None


class Metric(Struct, frozen=True, kw_only=True):
    """One metric of one arm. `difference` and `p` are against the control, corrected for the number of arms."""

    observations: int
    value: float | None
    interval: Interval
    difference: float | None
    difference_interval: Interval | None
    p: float | None


class Arm(Struct, frozen=True, kw_only=True):
    """What came of one arm. `requests` without those of testers; tokens and `cost` (by currency) are
    of all of these, however they ended."""

    name: str
    requests: int
    by_testers: int
    subjects: int
    prompt_tokens: int
    completion_tokens: int
    cost: dict[str, float]
    metrics: dict[str, Metric]


class Copies(Struct, frozen=True, kw_only=True):
    """What one Envoy counted since it started: copies that came to an end, those that reached a server, those that
    failed (5xx). `latency_ms` by percentile."""

    ended: int
    sent: int
    failed: int
    latency_ms: dict[str, float]


class Mirror(Struct, frozen=True, kw_only=True):
    """The shadow arm. `copies`: null where Envoy's admin interface says nothing of it."""

    pool: str
    copies: Copies | None


class Report(Struct, frozen=True, kw_only=True):
    """The arms compared, the control first. Intervals and p-values hold however often one looks. `since`: Unix
    seconds."""

    experiment: Experiment
    since: float
    alpha: float
    unit: Unit
    arms: tuple[Arm, ...]
    mirror: Mirror | None
