"""Which endpoint of its pool a request goes to, where the pool's `balancing` has the service choose: the one with the
fewest tokens pending, or the one that is least busy. Envoy is told it with the next best ones.

It comes last of all that may refuse, or keep waiting: what is known then is what holds when the request goes.
"""

from __future__ import annotations

from typing import ClassVar

from extproc.config.policy import PolicyMode, PolicySettings
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Services, Termination, Verdict
from extproc.policies.limit_expected import expected_tokens
from extproc.routing.endpoints import choose


class ChooseEndpoint:
    name: ClassVar[str] = "endpoint"
    settings_type: ClassVar[type[PolicySettings]] = PolicySettings

    def __init__(self, settings: PolicySettings, services: Services) -> None:
        self._enforced = settings.mode is PolicyMode.ENFORCE
        self._book = services.endpoints
        self._clock = services.clock
        self._metrics = services.metrics.endpoints

    async def on_request(self, ctx: RequestContext) -> Verdict:
        endpoints = None if ctx.pool is None else self._book.of(ctx.pool.name)
        if endpoints is not None:
            tokens, now_s = max(1, expected_tokens(ctx)), self._clock.monotonic()
            ctx.choice = choose(endpoints, tokens, now_s, named=self._enforced)
        return CONTINUE

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        choice = ctx.choice
        if choice is None or ctx.pool is None:
            return
        choice.release()
        outcome = "no_answer"
        if choice.answered_by:
            outcome = "as_chosen" if choice.answered_by == choice.order[0] else "another"
        self._metrics.chosen(ctx.pool.name, choice.endpoints.terms.balancing, outcome)
