"""The `experiments` section: requests for one thing split over several, and when one of them is given up.

Must not know: how a subject is assigned, or how a difference is tested.
"""

import enum
import hashlib
from collections.abc import Mapping
from typing import Annotated

import pydantic

from extproc.config.rules import HeaderName
from extproc.config.section import ModelName, Name, Seconds, Section

Weight = Annotated[float, pydantic.Field(ge=0, le=1_000_000)]
_Text = Annotated[str, pydantic.StringConstraints(min_length=1, max_length=256)]
_FINGERPRINT_CHARS = 12


class Sticky(enum.StrEnum):
    """What keeps its arm: an end user, an API key, a conversation, the value of a header; `request` keeps nothing."""

    USER = "user"
    KEY = "key"
    SESSION = "session"
    HEADER = "header"
    REQUEST = "request"


class Arm(Section):
    """One of the alternatives."""

    pool: Name | None = None
    """The pool that serves it."""

    model: ModelName | None = None
    """Or the model that takes the place of the one that was asked for."""

    weight: Weight = 1
    """Its share, relative to the weights of the other arms; 0 takes it out."""

    @pydantic.model_validator(mode="after")
    def _is_one(self) -> "Arm":
        if (self.pool is None) == (self.model is None):
            raise ValueError("give pool or model, one of them")
        return self


class RampStep(Section):
    """Weights from a moment on."""

    at: pydantic.AwareDatetime
    """The moment, with its time zone: `2026-12-01T09:00:00Z`."""

    weights: Annotated[Mapping[Name, Weight], pydantic.Field(min_length=1)]
    """The weights from then on; an arm that is not named keeps the one it had."""


class Testers(Section):
    """Who may choose an arm. What they send is in no comparison."""

    pinned: Mapping[_Text, Name] = {}
    """The arm of each of these principals."""

    header: HeaderName | None = None
    """A header whose value names an arm, believed of those below."""

    principals: tuple[_Text, ...] = ()
    """Principals who may use the header."""

    teams: tuple[_Text, ...] = ()
    """Teams whose members may."""


class GuardrailMetric(enum.StrEnum):
    """What can go wrong with an arm."""

    ERROR_RATE = "error_rate"
    GUARD_RATE = "guard_rate"
    P95_LATENCY_MS = "p95_latency_ms"


class Guardrail(Section):
    """A limit: an arm for which it is shown to be broken is given no more requests."""

    metric: GuardrailMetric
    """`error_rate` (of the requests that went to a model), `guard_rate` (of all: found to be attacks, or answers
    that content rules stopped) or `p95_latency_ms` (from the request to the end of its answer)."""

    above: Annotated[float, pydantic.Field(ge=0)] | None = None
    """Broken when the metric is above this."""

    worse_by: Annotated[float, pydantic.Field(ge=0, lt=1)] | None = None
    """Broken when a rate is above that of the control by more than this."""

    min_requests: Annotated[int, pydantic.Field(ge=1)] = 100
    """Nothing is concluded from fewer requests of an arm."""

    alpha: Annotated[float, pydantic.Field(gt=0, le=0.2)] = 0.01
    """Chance that an arm which is no worse is ever taken out by this guardrail, however often it is looked at."""

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "Guardrail":
        if (self.above is None) == (self.worse_by is None):
            raise ValueError("give above or worse_by, one of them")
        if self.metric is GuardrailMetric.P95_LATENCY_MS:
            if self.above is None:
                raise ValueError("p95_latency_ms needs above")
        elif self.above is not None and self.above >= 1:
            raise ValueError("a rate is below 1")
        return self


class Mirror(Section):
    """A pool that gets copies of requests, and whose answers nobody sees."""

    pool: Name
    """The pool: one cluster, with the dialect and the upstream model of every arm, because Envoy copies the bytes that
    were written for the arm. What comes of it is in `extproc ab report`."""

    percent: Annotated[float, pydantic.Field(gt=0, le=100)] = 100.0
    """So many of the experiment's requests are copied."""


class Experiment(Section):
    """An A/B test. Rules send requests to it (`policies.route.rules`)."""

    arms: Annotated[Mapping[Name, Arm], pydantic.Field(min_length=2, max_length=16)]
    """The arms by name."""

    control: Name
    """The arm with which the others are compared, and which no guardrail takes out."""

    sticky: Sticky = Sticky.KEY
    """What keeps its arm: `user` (`user` or `safety_identifier` in the request), `key`, `session` (the header
    `x-session-id`, or else how the conversation begins), `header`, or `request` (each by itself). A request without
    it goes by its key."""

    header: HeaderName | None = None
    """The header of `sticky: header`."""

    salt: Annotated[str, pydantic.StringConstraints(max_length=256)] = ""
    """Another salt is another assignment; by default the experiment's name."""

    ramp: tuple[RampStep, ...] = ()
    """Weights that change with time, in the order of time."""

    testers: Testers = Testers()
    """Who may choose an arm."""

    guardrails: tuple[Guardrail, ...] = ()
    """What takes an arm out by itself."""

    mirror: Mirror | None = None
    """A shadow arm."""

    guardrail_interval_s: Seconds = 10.0
    """How often the guardrails are looked at."""

    @property
    def fingerprint(self) -> str:
        """Stands for what a change while running was a change of: another arm, weight or step is another one."""
        described = self.model_dump_json(include={"arms", "control", "sticky", "header", "salt", "ramp"})
        return hashlib.sha256(described.encode()).hexdigest()[:_FINGERPRINT_CHARS]
