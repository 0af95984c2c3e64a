"""THE journey: which policies run, in which order, and the one runner that gives each its mode, deadline, failure
mode and metrics. A new policy is one line in one (or more) of the lists below.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import SecretStr

from extproc.config.policy import FailureMode, PolicyMode, PolicySettings
from extproc.detection.database import Keep
from extproc.dialects.answer import AnswerEvent
from extproc.dialects.feedback import Feedback
from extproc.errors import DependencyError
from extproc.policies.account import Account
from extproc.policies.admit import Admit
from extproc.policies.affinity import KeepToEndpoint
from extproc.policies.cache import Cache
from extproc.policies.choose_endpoint import ChooseEndpoint
from extproc.policies.context import RequestContext
from extproc.policies.count_tokens import CountTokens
from extproc.policies.filter_content import FilterContent
from extproc.policies.guard import Guard
from extproc.policies.identify import Identify
from extproc.policies.interface import (
    CONTINUE,
    Answer,
    AnswerPolicy,
    ClosePolicy,
    Continue,
    EscalatePolicy,
    FeedbackPolicy,
    HeadPolicy,
    KnownAnswerPolicy,
    Policy,
    Reject,
    ReplyPolicy,
    RequestPolicy,
    Services,
    Termination,
    Verdict,
)
from extproc.policies.limit import LimitRequests
from extproc.policies.list_models import ListModels
from extproc.policies.load_model import LoadModel
from extproc.policies.redact import Redact
from extproc.policies.require_audit import RequireAudit
from extproc.policies.route import Route
from extproc.policies.scan_texts import ScanTexts
from extproc.policies.semantic_cache import SemanticCache
from extproc.policies.validate import Validate
from extproc.rejection import Rejection, overloaded

# On the request's headers, before the body is buffered.
ON_HEAD: tuple[type[HeadPolicy], ...] = (
    Account,
    Identify,
    LimitRequests,
    ListModels,
)
# On the whole, parsed request. Guard before charge: what refuses comes before what costs.
ON_REQUEST: tuple[type[RequestPolicy], ...] = (
    RequireAudit,
    Validate,
    Route,
    CountTokens,
    Cache,
    ScanTexts,
    Guard,
    FilterContent,
    Redact,
    SemanticCache,
    LimitRequests,
    Admit,
    LoadModel,
    KeepToEndpoint,
    ChooseEndpoint,
    Account,
)
# On an answer that is known without a model, in place of what is left of the list above.
ON_KNOWN_ANSWER: tuple[type[KnownAnswerPolicy], ...] = (LimitRequests,)
# Before an answer of the gateway's own: a refusal counts as an attempt, and is told what is left.
ON_REPLY: tuple[type[ReplyPolicy], ...] = (LimitRequests,)
# Before another model is asked, because a cascade's small one did not do.
ON_ESCALATE: tuple[type[EscalatePolicy], ...] = (LimitRequests,)
# On every piece of the answer. `limit` may end it; then `redact` lets go what it holds; what goes is counted, and kept.
ON_ANSWER: tuple[type[AnswerPolicy], ...] = (
    LimitRequests,
    Redact,
    FilterContent,
    CountTokens,
    Cache,
)
# Once, when the exchange is over: the last count; what it was, on record with what is owed for it; then that is paid.
ON_CLOSE: tuple[type[ClosePolicy], ...] = (
    ScanTexts,
    CountTokens,
    Account,
    ChooseEndpoint,
    LimitRequests,
    Admit,
    LoadModel,
    Redact,
    FilterContent,
    Cache,
    SemanticCache,
)
# On what a user says of an answer.
ON_FEEDBACK: tuple[type[FeedbackPolicy], ...] = (SemanticCache,)

POLICIES: Mapping[str, type[Policy]] = {
    policy.name: policy for policy in (*ON_HEAD, *ON_REQUEST, *ON_ANSWER, *ON_CLOSE)
}
SETTINGS: Mapping[str, type[PolicySettings]] = {name: policy.settings_type for name, policy in POLICIES.items()}

CLOSE_DEADLINE_S = 5.0
"""A finalizer that takes longer than this is given up, and counted."""

_log = logging.getLogger(__name__)
T = TypeVar("T")


async def _bounded(work: Coroutine[Any, Any, T], deadline_s: float) -> T:
    async with asyncio.timeout(deadline_s):
        return await work


@dataclass(frozen=True, slots=True)
class Step:
    """One policy's place in one phase: `run` is its method for that phase."""

    name: str
    run: Callable[..., Coroutine[Any, Any, Any]]
    settings: PolicySettings
    shadow: bool

    def within_deadline(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """`work`, which then raises TimeoutError when the policy's deadline passes."""
        deadline_s = self.settings.deadline_s
        return work if deadline_s is None else _bounded(work, deadline_s)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The journey of one configuration version. Immutable; exchanges in flight keep the one they began with."""

    services: Services
    head: tuple[Step, ...]
    request: tuple[Step, ...]
    known_answer: tuple[Step, ...]
    answer: tuple[Step, ...]
    close: tuple[Step, ...]
    reply: tuple[Step, ...] = ()
    feedback: tuple[Step, ...] = ()
    escalate: tuple[Step, ...] = ()

    async def on_head(self, ctx: RequestContext) -> Verdict:
        """The first verdict that is not Continue, or Continue."""
        return await self._decide(self.head, ctx)

    async def on_request(self, ctx: RequestContext) -> Verdict:
        """The first verdict that is not Continue, or Continue."""
        verdict = await self._decide(self.request, ctx)
        if not isinstance(verdict, Answer):
            return verdict
        refusal = await self._decide(self.known_answer, ctx, verdict)
        return verdict if refusal is CONTINUE else refusal

    async def on_escalate(self, ctx: RequestContext) -> Rejection | None:
        """Why no other model may be asked, if so."""
        verdict = await self._decide(self.escalate, ctx)
        return verdict.rejection if isinstance(verdict, Reject) else None

    async def on_feedback(self, ctx: RequestContext, feedback: Feedback) -> Continue | Reject:
        """All who want to know it are told; a refusal where one of them must know it and can't."""
        for step in self.feedback:
            try:
                await step.within_deadline(step.run(ctx, feedback))
            except (DependencyError, TimeoutError) as error:
                verdict = self._failed(step, ctx, error)
                if verdict is not CONTINUE:
                    return verdict
        return CONTINUE

    async def on_answer(self, ctx: RequestContext, events: Sequence[AnswerEvent]) -> Sequence[AnswerEvent] | Reject:
        """The events as the policies let them pass, or the refusal that ends the answer."""
        step_s, clock = ctx.progress.step_s, self.services.clock.monotonic
        began_s = clock()
        for step in self.answer:
            passed: Sequence[AnswerEvent] | Continue | Reject
            try:
                passed = await step.within_deadline(step.run(ctx, events))
            except (DependencyError, TimeoutError) as error:
                passed = self._failed(step, ctx, error)
            ended_s = clock()
            step_s[step.name] = step_s.get(step.name, 0.0) + ended_s - began_s
            if ctx.trace is not None:
                ctx.trace.passed(step.name, began_s, ended_s)
            began_s = ended_s
            if isinstance(passed, Reject):
                self._count(step, passed)
                if not step.shadow:
                    return passed
            elif not isinstance(passed, Continue) and not step.shadow:
                events = passed
        return events

    async def on_reply(self, ctx: RequestContext) -> None:
        """What is lost or goes wrong here doesn't change the answer."""
        for step in self.reply:
            try:
                await step.within_deadline(step.run(ctx))
            except (DependencyError, TimeoutError) as error:
                self._failed(step, ctx, error)
            except Exception:
                self.services.metrics.policy_failed(step.name)
                _log.exception("policy %s failed", step.name, extra={"request_id": ctx.request_id})

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        """Every finalizer runs, whatever happened to the one before it."""
        ended_s = self.services.clock.monotonic()
        remaining = list(reversed(self.close))
        while remaining:
            step = remaining[-1]
            try:
                async with asyncio.timeout(CLOSE_DEADLINE_S):  # one timer for all, a new one after each that fails
                    while remaining:
                        step = remaining.pop()
                        await step.run(ctx, termination)
            except Exception:  # accounting of one policy must not cost another its own
                self.services.metrics.policy_failed(step.name)
                _log.exception("finalizer %s failed", step.name, extra={"request_id": ctx.request_id})
        self.services.metrics.policies_took(ctx.progress.step_s)
        if ctx.trace is not None:
            self.services.tracer.ended(list(ctx.trace.spans(ctx, termination, ended_s)))

    async def _decide(self, steps: Sequence[Step], ctx: RequestContext, *known: Answer) -> Verdict:
        step_s, clock = ctx.progress.step_s, self.services.clock.monotonic
        began_s = clock()
        for step in steps:
            verdict: Verdict
            try:
                verdict = await step.within_deadline(step.run(ctx, *known))
            except (DependencyError, TimeoutError) as error:
                verdict = self._failed(step, ctx, error)
            ended_s = clock()
            step_s[step.name] = step_s.get(step.name, 0.0) + ended_s - began_s
            if ctx.trace is not None:
                ctx.trace.decided(step.name, began_s, ended_s, _said(verdict))
            began_s = ended_s
            if verdict is not CONTINUE:
                self._count(step, verdict)
                if not step.shadow:
                    return verdict
        return CONTINUE

    def _failed(self, step: Step, ctx: RequestContext, error: DependencyError | TimeoutError) -> Continue | Reject:
        """A dependency was lost or too slow: the policy's own failure mode says what follows."""
        dependency = error.dependency if isinstance(error, DependencyError) else step.name
        ctx.degraded.add(step.name)
        self.services.metrics.dependency_failed(step.name, dependency)
        if step.settings.on_failure is FailureMode.OPEN:
            return CONTINUE
        return Reject(overloaded("The gateway can't check this request at the moment.", f"{step.name}_unavailable"))

    def _count(self, step: Step, verdict: Verdict) -> None:
        reason = verdict.rejection.reason if isinstance(verdict, Reject) else ""
        self.services.metrics.verdict(step.name, _said(verdict), step.settings.mode, reason)


def _said(verdict: Verdict) -> str:
    """For metrics and spans; empty where the policy let it go on."""
    return "" if verdict is CONTINUE else type(verdict).__name__.lower()


def _with_defaults(settings: Mapping[str, PolicySettings]) -> dict[str, PolicySettings]:
    return {name: settings.get(name) or policy.settings_type() for name, policy in POLICIES.items()}


def needs_encoder(settings: Mapping[str, PolicySettings]) -> bool:
    """Some policy that is on asks the encoder."""
    return any(own.uses_encoder and _acts(own) for own in _with_defaults(settings).values())


def needs_scan(settings: Mapping[str, PolicySettings]) -> bool:
    """Some policy that is on asks the encoder about all of a request's texts."""
    return any(own.uses_scan and _acts(own) for own in _with_defaults(settings).values())


def needs_verifier(settings: Mapping[str, PolicySettings]) -> bool:
    """Some policy that is on asks the pair verifier."""
    return any(own.uses_verifier and _acts(own) for own in _with_defaults(settings).values())


def keeps_answers(settings: Mapping[str, PolicySettings]) -> bool:
    """Some policy that is on asks the store of answers."""
    return any(own.keeps_answers and _acts(own) for own in _with_defaults(settings).values())


def answers_version(settings: Mapping[str, PolicySettings]) -> str:
    """Stands for all settings that can change an answer; those of policies which are off can't."""
    chosen = sorted(_with_defaults(settings).items())
    shaping = [(name, _revealed(own.model_dump())) for name, own in chosen if own.shapes_answers and _acts(own)]
    return hashlib.sha256(repr(shaping).encode()).hexdigest()


def _revealed(value: Any) -> Any:
    """With secrets as they are, which otherwise look all the same."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return sorted((str(key), _revealed(one)) for key, one in value.items())
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return [_revealed(one) for one in value] if isinstance(value, list | tuple) else value


def _acts(own: PolicySettings) -> bool:
    return own.mode is not PolicyMode.OFF


def prepare(settings: Mapping[str, PolicySettings], keep: Keep | None) -> None:
    """Make what takes a policy long to make, so that `build` finds it made. For a thread beside the event loop.

    Such a policy has a class method `prepare(settings, keep)`, which makes it and keeps it.
    """
    for name, own in _with_defaults(settings).items():
        make = getattr(POLICIES[name], "prepare", None)
        if make is not None and own.mode is not PolicyMode.OFF:
            make(own, keep)


def build(settings: Mapping[str, PolicySettings], services: Services) -> Pipeline:
    """The pipeline of one configuration; a policy without a section has its defaults."""
    chosen = _with_defaults(settings)
    # What would have nothing to do, in every exchange.
    if services.encoder is None or not needs_scan(settings):
        del chosen[ScanTexts.name]
    if not any(pool.affinity for pool in services.catalog.pools.values()):
        del chosen[KeepToEndpoint.name]
    if not services.endpoints:
        del chosen[ChooseEndpoint.name]
    if not any(pool.on_demand for pool in services.catalog.pools.values()):
        del chosen[LoadModel.name]
    policies = {name: POLICIES[name](own, services) for name, own in chosen.items() if own.mode is not PolicyMode.OFF}

    def phase(listed: Sequence[type[Policy]], method: str) -> tuple[Step, ...]:
        names = [policy.name for policy in listed if policy.name in policies]
        return tuple(
            Step(name, getattr(policies[name], method), chosen[name], chosen[name].mode is PolicyMode.SHADOW)
            for name in names
        )

    return Pipeline(
        services,
        phase(ON_HEAD, "on_head"),
        phase(ON_REQUEST, "on_request"),
        phase(ON_KNOWN_ANSWER, "on_known_answer"),
        phase(ON_ANSWER, "on_answer"),
        phase(ON_CLOSE, "on_close"),
        phase(ON_REPLY, "on_reply"),
        phase(ON_FEEDBACK, "on_feedback"),
        phase(ON_ESCALATE, "on_escalate"),
    )
