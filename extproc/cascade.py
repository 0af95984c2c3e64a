"""A cascade's small model on trial: its answer is held back until it is judged, and shown or given up.

Once a piece of it went on, all of it does. Owns what is held and what becomes of it. Must not know: who writes to the
client, or how another model is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum, StrEnum

from msgspec import structs

from extproc.config.cascades import LargeFails
from extproc.dialects.answer import AnswerEvent, Delta, Failed
from extproc.dialects.interface import UpstreamModel
from extproc.policies.cascade_exchange import Cascading, Outcome
from extproc.policies.context import RequestContext
from extproc.policies.pipeline import Pipeline
from extproc.rejection import Rejection, upstream_failed
from extproc.routing.catalog import Pool
from extproc.routing.judge import GOOD, Judge, Reason, Verdict

_NAME = "cascade"
_INLINE_LIMIT_CHARS = 65536
FAILED = upstream_failed("No model server gave a good answer.")
"""What a client is told where the small model's answer is not to be shown, and nobody gave another."""


def upstream_model(ctx: RequestContext, pool: Pool) -> UpstreamModel:
    """What `pool`, which is asked first, is told of its model."""
    cascading = ctx.cascading
    if cascading is None:
        return ctx.model.upstream(pool, ctx.default_output_tokens)
    limit_tokens, wants_logprobs = cascading.output_limit_tokens, cascading.wants_logprobs
    return cascading.first.upstream(pool, limit_tokens, wants_logprobs=wants_logprobs)


class Kept(StrEnum):
    """Why the small model's answer was kept although it was not good enough."""

    LARGE_FAILED = "large_failed"
    LIMIT = "limit"


class Finding(Enum):
    """What is to be done now."""

    HOLD = "hold"
    SHOW = "show"
    ESCALATE = "escalate"


class Trial:
    """Of one exchange."""

    def __init__(self, cascading: Cascading) -> None:
        self._cascading = cascading
        self._judge = Judge(cascading.checks)
        cascading.said = self._judge.said
        self._held: list[AnswerEvent] = []
        self._verdict: Verdict | None = None

    def take(self, events: Sequence[AnswerEvent]) -> Finding:
        """What more came of the answer. SHOW goes for all that is held, too (`shown`)."""
        self._held += events
        if self._cascading.outcome is Outcome.KEPT:
            return Finding.SHOW
        for event in events:
            self._verdict = self._judge.see(event)
            self._cascading.usage, self._cascading.tokens = self._judge.usage, self._judge.tokens
            if self._verdict is not None:
                break
        if self._verdict is None:
            return Finding.HOLD
        if self._verdict is GOOD and self._has_failed():  # in the same breath, before a piece of it went on
            self._verdict = Reason.FAILED
        return Finding.SHOW if self._verdict is GOOD else Finding.ESCALATE

    def shown(self, ctx: RequestContext) -> Sequence[AnswerEvent]:
        """What is held, as the client may have it: it has not asked for log-probabilities."""
        if self._cascading.outcome is None:
            self._keep(ctx, "")
        held, self._held = self._held, []
        return [_without_logprobs(event) for event in held] if self._cascading.strips_logprobs else held

    async def give_up(self, ctx: RequestContext, pipeline: Pipeline) -> Rejection | None:
        """The model that was asked for is to answer; why it can't be asked, if so."""
        cascading = self._cascading
        cascading.reason = str(self._verdict)
        if sum(map(len, cascading.said)) > _INLINE_LIMIT_CHARS:
            cascading.spent = await asyncio.to_thread(cascading.used)
        else:
            cascading.spent = cascading.used()
        cascading.outcome = Outcome.ESCALATED
        return await pipeline.on_escalate(ctx)

    def can_be_shown(self) -> bool:
        """The operator wants it if there is no other, and it is whole, or goes on."""
        shows = self._cascading.checks.cascade.on_large_failure is LargeFails.ANSWER
        return shows and not self._has_failed()

    def keep_after_all(self, ctx: RequestContext, why: Kept) -> None:
        """It was not good enough, but there is no other."""
        self._keep(ctx, why)
        ctx.not_for_others.add(_NAME)

    def _has_failed(self) -> bool:
        return any(type(event) is Failed for event in self._held)

    def _keep(self, ctx: RequestContext, reason: str) -> None:
        cascading = self._cascading
        cascading.outcome, cascading.reason, cascading.spent = Outcome.KEPT, reason, None
        if cascading.prompt_tokens is not None:
            ctx.progress.totals.prompt_tokens = cascading.prompt_tokens


def _without_logprobs(event: AnswerEvent) -> AnswerEvent:
    if type(event) is Delta and event.logprobs is not None:
        return structs.replace(event, logprobs=None, raw=None)
    return event
