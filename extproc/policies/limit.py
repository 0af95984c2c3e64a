"""Limits and budgets: reserve before a request goes on, draw more while it streams, settle when it is over.

On the headers it turns away, without asking Redis, who is known to have no request left. On the request it is last, so
that what was refused before costs no tokens: one round trip checks and takes everything. At the end it settles to what
was really used, which is what the usage event says. An attempt that never came as far as the reservation is counted
before it is answered, or at its end if its client left first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import ClassVar

from msgspec import structs

from extproc.config.policy import PolicyMode, PolicySettings
from extproc.dialects.answer import AnswerEvent, Delta, Done
from extproc.errors import DependencyError
from extproc.limits import PERCENT, Admission, Charge, Limit, Measure, State
from extproc.policies.account import charged_size, tried_size
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Answer, Continue, Reject, Services, Termination, Verdict
from extproc.policies.limit_answers import TOLD, headers, impossible, is_soft, no_room_for_more, refusal
from extproc.policies.limit_expected import ExpectedOutput, cap_tokens, prompt_tokens
from extproc.policies.limit_hold import Hold
from extproc.policies.limit_rules import Applied, Rules, Size, charges, fitting_output
from extproc.policies.limit_settings import KnownAnswers, Midstream, Settings

CUT = "limit_reached"
"""The reason of an answer that was ended because its limit was spent."""

_LONGEST_BLOCK_MS = 5000  # if Redis forgets meanwhile, so do we
_MOST_BLOCKED = 10_000
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0)
_log = logging.getLogger(__name__)


class LimitRequests:
    """The policy `limit`."""

    name: ClassVar[str] = "limit"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._limiter = services.limiter
        self._usage = services.usage
        self._clock = services.clock
        self._pressure = services.pressure
        self._rules = Rules(settings)
        self._expected = ExpectedOutput()
        self._enforced = settings.mode is PolicyMode.ENFORCE
        self._blocked: dict[str, tuple[float, State]] = {}  # when it was said, and what
        self._exceeded = services.metrics.counter(
            "extproc_limit_exceeded_total", "Requests that a limit had no room for.", ("limit", "mode")
        )
        self._soft = services.metrics.counter(
            "extproc_budget_soft_total", "Reservations that took a budget beyond its soft threshold.", ("limit",)
        )
        # Not a gauge: budgets are many under one name, and replicas that last saw one at different times would differ.
        self._spent = services.metrics.histogram(
            "extproc_budget_used_ratio", "How much of a budget was used, as each reservation found it.", _SHARES,
            ("limit",),
        )  # fmt: skip

    async def on_head(self, ctx: RequestContext) -> Verdict:
        if ctx.route.api is None:
            return CONTINUE
        ctx.governed = True
        if not self._enforced:
            return CONTINUE
        told = self._known_blocked(_requests(self._rules.applied(ctx.principal, "")))
        if not told:
            return CONTINUE
        ctx.held = Hold(admitted=False)
        self._tell(ctx, told)
        return Reject(refusal(told, max(state.wait_ms for _, state in told)))

    async def on_request(self, ctx: RequestContext) -> Verdict:
        applied = self._rules.applied(ctx.principal, ctx.model.name, self._percent(ctx))
        if not applied:
            ctx.held = Hold(admitted=False)
            return CONTINUE
        cap = cap_tokens(ctx)
        expected = self._expected.expect(ctx.principal.id, ctx.model.name, cap)
        price = ctx.model.config.price
        size = Size(prompt_tokens(ctx), expected, 0, None if price is None else price.exact)
        output = fitting_output(applied, size, min(1, cap))
        if isinstance(output, Limit):
            return Reject(impossible(output))
        size = Size(size.prompt_tokens, output, 0, size.price)
        taken = charges(applied, size)
        ctx.held = held = Hold(False, applied, size, cap, ctx.request.choices)
        settings = self._settings
        admission = await self._limiter.reserve(ctx.request_id, taken, settings.reservation_ttl_s, settings.redis_lost)
        held.admitted = admission.admitted
        return self._decide(ctx, taken, admission)

    async def on_known_answer(self, ctx: RequestContext, answer: Answer) -> Continue | Reject:
        """From a cache: the model has no work with it, so by default it is a request and no tokens."""
        cost = self._settings.known_answers
        applied: Sequence[Applied] = ()
        if cost is not KnownAnswers.NOTHING:
            applied = self._rules.applied(ctx.principal, ctx.model.name, self._percent(ctx))
        if cost is KnownAnswers.REQUEST:
            applied = _requests(applied)
        ctx.charged_as_used = cost is KnownAnswers.AS_USED
        ctx.held = held = Hold(admitted=False)
        if not applied:
            return CONTINUE
        totals, price = answer.totals, ctx.model.config.price
        size = Size(
            totals.prompt_tokens, totals.completion_tokens, totals.cached_tokens, price.exact if price else None
        )
        taken = charges(applied, size)
        lost = self._settings.redis_lost
        if ctx.charged_as_used:
            held.applied, held.size = applied, size
            admission = await self._limiter.reserve(ctx.request_id, taken, self._settings.reservation_ttl_s, lost)
            held.admitted = admission.admitted
        else:  # what is never given back needs no reservation
            admission = await self._limiter.attempt(taken, lost)
        return self._decide(ctx, taken, admission)

    async def on_reply(self, ctx: RequestContext) -> None:
        """A request that is answered before it came to the reservation was an attempt all the same."""
        if ctx.governed and ctx.held is None:
            ctx.held = Hold(admitted=False)
            await self._count_attempt(ctx)

    async def on_answer(self, ctx: RequestContext, events: Sequence[AnswerEvent]) -> Sequence[AnswerEvent]:
        held = ctx.held
        if held is None or not held.admitted or not ctx.request.stream:
            return events
        held.watch(events)
        if not held.outrun:
            return events
        size = held.next_size()
        if await self._limiter.extend(ctx.request_id, held.more(size)):
            held.size = size
            return events
        held.spent = True
        if self._settings.midstream is Midstream.ALLOW or not self._enforced:
            return events
        ctx.reason = CUT
        return [*events, *(Delta(index, finish_reason="length") for index in sorted(held.unfinished)), Done()]

    async def on_escalate(self, ctx: RequestContext) -> Continue | Reject:
        """What the small model used comes on top of what is reserved for the one that was asked for."""
        held = ctx.held
        if held is None or not held.admitted:
            return CONTINUE
        size = structs.replace(held.size, tried=tried_size(ctx))
        if await self._limiter.extend(ctx.request_id, held.more(size)):
            held.size = size
            return CONTINUE
        return Reject(no_room_for_more())

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        held = ctx.held
        if held is None:
            if ctx.governed:
                await self._count_attempt(ctx)
            return
        if not held.admitted:
            return
        totals = ctx.progress.totals
        await self._limiter.settle(ctx.request_id, held.owed(charged_size(ctx, termination)))
        self._usage.settled(ctx.request_id)
        # An answer that its cap or its limit ended says nothing about how long they are.
        whole = termination is Termination.COMPLETED and ctx.reason != CUT
        if whole and totals.completion_tokens < held.cap_tokens:
            self._expected.learn(ctx.principal.id, ctx.model.name, totals.completion_tokens)

    def _percent(self, ctx: RequestContext) -> int:
        """What is left of this caller's limits, for requests to this pool."""
        adaptive = self._settings.adaptive
        if adaptive is None or ctx.pool is None:
            return PERCENT
        return adaptive.percent(self._pressure.level(ctx.pool.name), ctx.principal.tier)

    async def _count_attempt(self, ctx: RequestContext) -> None:
        """One request, and a look at what is left of the other limits that a client is told of."""
        applied = self._rules.applied(ctx.principal, ctx.model_name, self._percent(ctx))
        shown = [one for one in applied if one.limit.measure in TOLD]
        if not shown:
            return
        taken = charges(shown, Size(0, 0))
        try:
            admission = await self._limiter.attempt(taken, self._settings.redis_lost)
        except DependencyError:
            return  # nothing passes anyway
        if admission.shared:
            ctx.degraded.add(self.name)
        self._remember(taken, admission)
        self._tell(ctx, [(charge.limit, state) for charge, state in zip(taken, admission.states, strict=True)])

    def _decide(self, ctx: RequestContext, taken: Sequence[Charge], admission: Admission) -> Continue | Reject:
        if admission.shared:
            ctx.degraded.add(self.name)
        self._remember(taken, admission)
        told = [(charge.limit, state) for charge, state in zip(taken, admission.states, strict=True)]
        self._tell(ctx, told)
        for charge, state in zip(taken, admission.states, strict=True):
            limit = charge.limit
            if limit.measure is Measure.MONEY:
                self._spent.labels(limit.name).observe(1 - state.remaining / limit.amount)
            if state.wait_ms != 0:
                self._exceeded.labels(limit.name, "shadow" if limit.shadow else "enforce").inc()
            elif admission.admitted and is_soft(limit, state):
                self._note_soft(ctx, charge, state)
        return CONTINUE if admission.admitted else Reject(refusal(told, admission.retry_ms))

    def _tell(self, ctx: RequestContext, told: Sequence[tuple[Limit, State]]) -> None:
        if self._enforced:
            ctx.response_headers.extend(headers(told))

    def _note_soft(self, ctx: RequestContext, charge: Charge, state: State) -> None:
        """Told once, by the reservation that took the budget beyond its threshold."""
        limit = charge.limit
        if limit.amount - state.remaining - charge.cost < limit.soft:
            self._soft.labels(limit.name).inc()
            principal = ctx.principal
            facts = {"budget": limit.name, "principal": principal.id, "team": principal.team}
            _log.warning("a budget is used beyond its soft threshold", extra=facts)

    def _remember(self, taken: Sequence[Charge], admission: Admission) -> None:
        """Until when a limit of requests is known to have none left. One that is scaled down has, for another pool."""
        for charge, state in zip(taken, admission.states, strict=True):
            limit = charge.limit
            if state.wait_ms > 0 and limit.measure is Measure.REQUESTS and not limit.shadow and not limit.full:
                if len(self._blocked) >= _MOST_BLOCKED:
                    self._blocked.clear()
                self._blocked[charge.key] = (self._clock.monotonic(), state)

    def _known_blocked(self, applied: Sequence[Applied]) -> list[tuple[Limit, State]]:
        told = []
        now_s = self._clock.monotonic()
        for one in applied:
            said_s, state = self._blocked.get(one.key, (0.0, None))
            if state is None:
                continue
            passed_ms = int((now_s - said_s) * 1000)
            if passed_ms >= min(state.wait_ms, _LONGEST_BLOCK_MS):
                del self._blocked[one.key]
            else:
                left = State(state.remaining, max(0, state.reset_ms - passed_ms), state.wait_ms - passed_ms)
                told.append((one.limit, left))
        return told


def _requests(applied: Sequence[Applied]) -> list[Applied]:
    return [one for one in applied if one.limit.measure is Measure.REQUESTS]
