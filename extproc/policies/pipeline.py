"""THE journey: which policies run, in which order, and the one runner that gives each its mode, deadline, failure
mode and metrics. A new policy is one line in one (or more) of the four lists below.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from extproc.config.policy import FailureMode, PolicyMode, PolicySettings
from extproc.dialects.answer import AnswerEvent
from extproc.errors import DependencyError
from extproc.policies.account import Account
from extproc.policies.context import RequestContext
from extproc.policies.count_tokens import CountTokens
from extproc.policies.identify import Identify
from extproc.policies.interface import (
    CONTINUE,
    AnswerPolicy,
    ClosePolicy,
    Continue,
    HeadPolicy,
    Policy,
    Reject,
    RequestPolicy,
    Services,
    Termination,
    Verdict,
)
from extproc.policies.list_models import ListModels
from extproc.policies.route import Route
from extproc.policies.validate import Validate
from extproc.rejection import overloaded

# On the request's headers, before the body is buffered.
ON_HEAD: tuple[type[Policy], ...] = (
    Identify,
    ListModels,
)
# On the whole, parsed request. Guard before charge: what refuses comes before what costs.
ON_REQUEST: tuple[type[Policy], ...] = (
    Validate,
    Route,
    CountTokens,
)
# On every piece of the answer.
ON_ANSWER: tuple[type[Policy], ...] = (CountTokens,)
# Once, when the exchange is over.
ON_CLOSE: tuple[type[Policy], ...] = (
    CountTokens,
    Account,
)

POLICIES: Mapping[str, type[Policy]] = {
    policy.name: policy for phase in (ON_HEAD, ON_REQUEST, ON_ANSWER, ON_CLOSE) for policy in phase
}
SETTINGS: Mapping[str, type[PolicySettings]] = {name: policy.settings_type for name, policy in POLICIES.items()}

CLOSE_DEADLINE_S = 5.0
"""A finalizer that takes longer than this is given up, and counted."""

_log = logging.getLogger(__name__)
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Step:
    """One policy's place in one phase."""

    name: str
    policy: Any
    settings: PolicySettings

    @property
    def shadow(self) -> bool:
        return self.settings.mode is PolicyMode.SHADOW


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The journey of one configuration version. Immutable; exchanges in flight keep the one they began with."""

    services: Services
    head: tuple[Step, ...]
    request: tuple[Step, ...]
    answer: tuple[Step, ...]
    close: tuple[Step, ...]

    async def on_head(self, ctx: RequestContext) -> Verdict:
        """The first verdict that is not Continue, or Continue."""
        for step in self.head:
            verdict = await self._decide(step, step.policy.on_head, ctx)
            if verdict is not CONTINUE:
                return verdict
        return CONTINUE

    async def on_request(self, ctx: RequestContext) -> Verdict:
        """The first verdict that is not Continue, or Continue."""
        for step in self.request:
            verdict = await self._decide(step, step.policy.on_request, ctx)
            if verdict is not CONTINUE:
                return verdict
        return CONTINUE

    async def on_answer(self, ctx: RequestContext, events: Sequence[AnswerEvent]) -> Sequence[AnswerEvent] | Reject:
        """The events as the policies let them pass, or the refusal that ends the answer."""
        clock = self.services.clock.monotonic
        for step in self.answer:
            began_s = clock()
            try:
                async with asyncio.timeout(step.settings.deadline_s):
                    passed = await step.policy.on_answer(ctx, events)
            except (DependencyError, TimeoutError) as error:
                passed = self._failed(step, ctx, error)
            ctx.timed(step.name, clock, began_s)
            if isinstance(passed, Reject):
                self._count(step, passed)
                if not step.shadow:
                    return passed
            elif not isinstance(passed, Continue) and not step.shadow:
                events = passed
        return events

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        """Every finalizer runs, whatever happened to the one before it."""
        for step in self.close:
            try:
                async with asyncio.timeout(CLOSE_DEADLINE_S):
                    await step.policy.on_close(ctx, termination)
            except Exception:  # accounting of one policy must not cost another its own
                self.services.metrics.policy_failed(step.name)
                _log.exception("finalizer %s failed", step.name, extra={"request_id": ctx.request_id})
        for name, seconds in ctx.step_s.items():
            self.services.metrics.policy_took(name, seconds)

    async def _decide(self, step: Step, decide: Callable[[RequestContext], Any], ctx: RequestContext) -> Verdict:
        clock = self.services.clock.monotonic
        began_s = clock()
        verdict: Verdict
        try:
            if step.settings.deadline_s is None:
                verdict = await decide(ctx)
            else:
                async with asyncio.timeout(step.settings.deadline_s):
                    verdict = await decide(ctx)
        except (DependencyError, TimeoutError) as error:
            verdict = self._failed(step, ctx, error)
        ctx.timed(step.name, clock, began_s)
        if verdict is CONTINUE:
            return CONTINUE
        self._count(step, verdict)
        return CONTINUE if step.shadow else verdict

    def _failed(self, step: Step, ctx: RequestContext, error: DependencyError | TimeoutError) -> Continue | Reject:
        """A dependency was lost or too slow: the policy's own failure mode says what follows."""
        dependency = error.dependency if isinstance(error, DependencyError) else step.name
        ctx.degraded.add(dependency)
        self.services.metrics.dependency_failed(step.name, dependency)
        if step.settings.on_failure is FailureMode.OPEN:
            return CONTINUE
        return Reject(overloaded("The gateway can't check this request at the moment.", f"{step.name}_unavailable"))

    def _count(self, step: Step, verdict: Verdict) -> None:
        reason = verdict.rejection.reason if isinstance(verdict, Reject) else ""
        self.services.metrics.verdict(step.name, type(verdict).__name__.lower(), step.settings.mode, reason)


def build(settings: Mapping[str, PolicySettings], services: Services) -> Pipeline:
    """The pipeline of one configuration; a policy without a section has its defaults."""
    chosen = {name: settings.get(name) or policy.settings_type() for name, policy in POLICIES.items()}
    steps = {
        name: Step(name, POLICIES[name](own, services), own)
        for name, own in chosen.items()
        if own.mode is not PolicyMode.OFF
    }

    def phase(policies: Sequence[type[Policy]], protocol: type[Any]) -> tuple[Step, ...]:
        present = tuple(steps[policy.name] for policy in policies if policy.name in steps)
        for step in present:
            if not isinstance(step.policy, protocol):
                raise TypeError(f"{step.name} is listed in a phase for which it has no method")
        return present

    return Pipeline(
        services,
        phase(ON_HEAD, HeadPolicy),
        phase(ON_REQUEST, RequestPolicy),
        phase(ON_ANSWER, AnswerPolicy),
        phase(ON_CLOSE, ClosePolicy),
    )
