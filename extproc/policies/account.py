"""Exactly one usage event per request, whatever its end, and the metrics that go with it.

It is first among the policies, so that an exchange is on record before anything can go wrong with it (even the death of
its worker), and last, when all is known.
"""

from __future__ import annotations

from typing import ClassVar

from extproc.config.policy import PolicySettings
from extproc.money import Price, cost_nano
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Services, Termination, Verdict

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
        held = ctx.held
        owed = [] if held is None else held.owed(progress.totals, price_of(ctx), charged=is_charged(ctx, termination))
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


def price_facts(ctx: RequestContext, termination: Termination) -> Facts:
    """What the exchange costs, in nano-units (10^-9) of the currency; no currency where the model has no price."""
    price = ctx.serving_model.config.price if ctx.model_name else None
    if price is None:
        return {"price_nano": 0, "currency": ""}
    totals, nano = ctx.progress.totals, 0
    if is_charged(ctx, termination):
        nano = cost_nano(price.exact, totals.prompt_tokens, totals.cached_tokens, totals.completion_tokens)
    return {"price_nano": nano, "currency": price.currency}


def facts_known_at_end(ctx: RequestContext, termination: Termination) -> Facts:
    """What came of it, for the access log and the usage event (proto: extproc.v1.ExchangeMetadata)."""
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
        **_guard_facts(ctx),
        **_queue_facts(ctx),
    }
    if progress.first_bytes_s is not None:
        facts["ttft_ms"] = round((progress.first_bytes_s - ctx.arrived_s) * 1e3, 3)
    return facts


def _fallback_facts(ctx: RequestContext) -> Facts:
    """Empty where the pool that was asked first served."""
    if ctx.served is None or ctx.pool is None:
        return {}
    return {"pool": ctx.served.pool.name, "fallback_from": ctx.pool.name, "served_model": ctx.served.model.name}


def _queue_facts(ctx: RequestContext) -> Facts:
    """Empty where there is no line before the pool, or the request never came to it."""
    place = ctx.place
    if place is None:
        return {}
    waited_ms = round(place.waited_s * 1e3, 3)
    return {"priority": place.priority.name, "queue_position": place.position, "queued_ms": waited_ms}


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
