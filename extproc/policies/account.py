"""Exactly one usage event per request, whatever its end, and the metrics that go with it.

It is first among the policies, so that an exchange is on record before anything can go wrong with it (even the death of
its worker), and last, when all is known.
"""

from __future__ import annotations

from typing import ClassVar

from extproc.config.policy import PolicySettings
from extproc.limits import Measure
from extproc.money import Price
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Services, Termination, Verdict
from extproc.policies.limit_rules import Size

_LEFT = "left"
"""A cascade's outcome where the exchange was over before there was one."""

Facts = dict[str, str | int | float | bool]


class Account:
    name: ClassVar[str] = "account"
    settings_type: ClassVar[type[PolicySettings]] = PolicySettings

    def __init__(self, settings: PolicySettings, services: Services) -> None:
        self._clock = services.clock
        self._usage = services.usage
        self._metrics = services.metrics
        self._config_version = services.config_version

    async def on_head(self, ctx: RequestContext) -> Verdict:
        self._usage.opened(ctx.request_id, self._known(ctx))
        return CONTINUE

    async def on_request(self, ctx: RequestContext) -> Verdict:
        ctx.admitted = True
        facts = self._known(ctx) | facts_known_at_forward(ctx) | _experiment_facts(ctx)
        self._usage.opened(ctx.request_id, facts)
        return CONTINUE

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        progress, duration_s = ctx.progress, self._clock.monotonic() - ctx.arrived_s
        self._metrics.exchanges.ended(ctx, termination, duration_s)
        event = self._known(ctx) | facts_known_at_forward(ctx) | facts_known_at_end(ctx, termination)
        if ctx.cascading is not None and ctx.admitted:
            cascading = ctx.cascading
            self._metrics.routing.cascaded(cascading.cascade.name, cascading.outcome or _LEFT, cascading.reason)
        price = price_facts(ctx, termination)
        if price["price_nano"]:
            self._metrics.exchanges.cost(
                ctx.model_name, ctx.principal.tier, str(price["currency"]), int(price["price_nano"])
            )
        event |= price
        event |= _experiment_facts(ctx)
        event["upstream_usage"] = progress.upstream_usage
        event["saved_tokens"] = 0 if ctx.caching is None else ctx.caching.saved_tokens
        event["status"] = progress.status
        event["duration_ms"] = round(duration_s * 1e3, 3)
        owed = [] if ctx.held is None else ctx.held.owed(charged_size(ctx, termination))
        self._usage.closed(ctx.request_id, event, owed)

    def _known(self, ctx: RequestContext) -> Facts:
        return {
            "id": ctx.request_id,
            "time": round(ctx.arrived_wall_s, 6),
            "stream": ctx.stream,
            "config_version": self._config_version,
        }


def facts_known_at_forward(ctx: RequestContext) -> Facts:
    """Who asks for what, for the access log and the usage event (proto: extproc.v1.ExchangeMetadata)."""
    principal, pool = ctx.principal, ctx.serving_pool
    return {
        "principal": principal.id,
        "team": principal.team,
        "tier": principal.tier,
        "operation": ctx.operation,
        "model": ctx.model_name,
        "pool": pool.name if pool is not None else "",
        "arm": ctx.arm,
        "rule": "" if ctx.destination is None else ctx.destination.rule,
        "prompt_tokens": ctx.progress.totals.prompt_tokens,
    }


def _experiment_facts(ctx: RequestContext) -> Facts:
    """For whom its arm was drawn; of which answer a user says what."""
    facts: Facts = {}
    if ctx.destination is not None and ctx.destination.taken is not None:
        facts["subject"] = ctx.destination.taken.subject
    if ctx.rated is not None:
        facts |= {"rated": ctx.rated.response, "score": ctx.rated.score}
    return facts


def is_charged(ctx: RequestContext, termination: Termination) -> bool:
    """Whether the exchange costs what it used.

    What the model had to work on does, though the client left early; what was refused before it, or failed without a
    word of an answer, does not. What a cache answered does if limits say so.
    """
    if ctx.caching is not None and ctx.caching.answered:
        return ctx.charged_as_used and termination is Termination.COMPLETED
    if ctx.progress.totals.completion_tokens > 0:
        return True
    return ctx.admitted and termination in (Termination.COMPLETED, Termination.CANCELLED)


def price_of(ctx: RequestContext) -> Price | None:
    """What the model that serves it costs."""
    price = ctx.serving_model.config.price if ctx.model_name else None
    return None if price is None else price.exact


def charged_size(ctx: RequestContext, termination: Termination) -> Size | None:
    """What the exchange is charged for; None: nothing."""
    if not is_charged(ctx, termination):
        return None
    totals = ctx.progress.totals
    price = price_of(ctx)
    return Size(totals.prompt_tokens, totals.completion_tokens, totals.cached_tokens, price, tried_size(ctx))


def tried_size(ctx: RequestContext) -> Size | None:
    """What a cascade's small model used for an answer that was not good enough; None: there is none."""
    cascading = ctx.cascading
    if cascading is None or cascading.spent is None:
        return None
    spent = cascading.spent
    # A price per request is paid for what came of it.
    price = cascading.price if spent.completion_tokens else None
    return Size(spent.prompt_tokens, spent.completion_tokens, spent.cached_tokens, price)


def price_facts(ctx: RequestContext, termination: Termination) -> Facts:
    """What the exchange costs, in nano-units (10^-9) of the currency; no currency where no model has a price."""
    size, tried = charged_size(ctx, termination), tried_size(ctx)
    prices = [price_of(ctx), None if tried is None else tried.price]
    currency = next((price.currency for price in prices if price is not None), "")
    facts: Facts = {"price_nano": 0 if size is None else size.of(Measure.MONEY), "currency": currency}
    if tried is not None:
        facts |= {"tried_tokens": tried.of(Measure.TOKENS), "tried_nano": 0}
        if size is not None:
            facts["tried_nano"] = tried.of(Measure.MONEY)
    return facts


def facts_known_at_end(ctx: RequestContext, termination: Termination) -> Facts:
    """What came of it, for the usage event and, with its price as people read it, for the access log."""
    progress = ctx.progress
    facts: Facts = {
        "prompt_tokens": progress.totals.prompt_tokens,
        "completion_tokens": progress.totals.completion_tokens,
        "cached_tokens": progress.totals.cached_tokens,
        "overhead_ms": round(progress.overhead_s * 1e3, 3),
        "termination": termination.upper(),
        "reason": ctx.reason,
        "cache": "" if ctx.caching is None else ctx.caching.result,
        "redacted": 0 if ctx.redaction is None else ctx.redaction.changed,
        **_fallback_facts(ctx),
        **_cascade_facts(ctx),
        **_guard_facts(ctx),
        **_queue_facts(ctx),
        **_endpoint_facts(ctx),
    }
    if progress.first_bytes_s is not None:
        facts["ttft_ms"] = round((progress.first_bytes_s - ctx.arrived_s) * 1e3, 3)
    return facts


def metadata_known_at_end(ctx: RequestContext, termination: Termination) -> Facts:
    """The same for Envoy (proto: extproc.v1.ExchangeMetadata)."""
    facts, price = facts_known_at_end(ctx, termination), price_facts(ctx, termination)
    if price["currency"]:
        facts |= {"price": int(price["price_nano"]) / 1e9, "currency": price["currency"]}
    return facts


def _fallback_facts(ctx: RequestContext) -> Facts:
    """Empty where the pool that was asked first served."""
    if ctx.served is None or ctx.pool is None:
        return {}
    asked = ctx.model.pool if ctx.escalated else ctx.pool
    if ctx.served.pool is asked:
        return {"pool": asked.name}
    return {"pool": ctx.served.pool.name, "fallback_from": asked.name, "served_model": ctx.served.model.name}


def _cascade_facts(ctx: RequestContext) -> Facts:
    """Empty outside of cascades, and where no answer came to be judged."""
    cascading = ctx.cascading
    if cascading is None or not ctx.admitted:
        return {}
    label = f"{cascading.cascade.name}/{cascading.outcome or _LEFT}"
    facts: Facts = {"cascade": label, "cascade_reason": cascading.reason}
    facts["tried_model"] = cascading.first.name
    if ctx.served is None and not ctx.escalated:
        facts["served_model"] = cascading.first.name
    return facts


def _queue_facts(ctx: RequestContext) -> Facts:
    """Empty where there is no line before the pool, or the request never came to it."""
    place = ctx.place
    if place is None:
        return {}
    waited_ms = round(place.waited_s * 1e3, 3)
    return {"priority": place.priority.name, "queue_position": place.position, "queued_ms": waited_ms}


def _endpoint_facts(ctx: RequestContext) -> Facts:
    """Empty where Envoy chose, or another pool served."""
    choice = ctx.choice
    if choice is None or ctx.served is not None:
        return {}
    return {"endpoint": choice.answered_by, "endpoint_chosen": choice.order[0]}


def _guard_facts(ctx: RequestContext) -> Facts:
    """Empty where the guard did not look, or is off."""
    found = ctx.guard
    if found is None:
        return {}
    facts: Facts = {"guard_score": round(found.score, 4), "guard_over": found.over or ""}
    facts["guard_families"] = ",".join(found.families)
    if found.coverage is not None:
        facts |= {"guard_windows": found.coverage.done, "guard_windows_total": found.coverage.total}
    return facts
