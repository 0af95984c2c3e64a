"""Exactly one usage event per request, whatever its end, and the metrics that go with it."""

from __future__ import annotations

from typing import ClassVar

from extproc.config.policy import PolicySettings
from extproc.policies.context import RequestContext
from extproc.policies.interface import Services, Termination


class Account:
    name: ClassVar[str] = "account"
    settings_type: ClassVar[type[PolicySettings]] = PolicySettings

    def __init__(self, settings: PolicySettings, services: Services) -> None:
        self._clock = services.clock
        self._emit = services.emit_usage
        self._metrics = services.metrics
        self._config_version = services.config_version

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        answer, duration_s = ctx.answer, self._clock.monotonic() - ctx.arrived_s
        self._metrics.exchange_ended(ctx, termination, duration_s)
        event = exchange_facts(ctx, termination) | {
            "id": ctx.request_id,
            "time": round(ctx.arrived_wall_s, 6),
            "upstream_usage": answer.upstream_usage,
            "status": answer.status,
            "duration_ms": round(duration_s * 1e3, 3),
            "stream": ctx.stream,
            "config_version": self._config_version,
        }
        self._emit(event)


def exchange_facts(ctx: RequestContext, termination: Termination) -> dict[str, str | int | float | bool]:
    """What the usage event and the access log both say (proto: extproc.v1.ExchangeMetadata)."""
    answer, principal = ctx.answer, ctx.principal
    facts: dict[str, str | int | float | bool] = {
        "principal": principal.id,
        "team": principal.team,
        "tier": principal.tier,
        "operation": ctx.operation,
        "model": ctx.model_name,
        "pool": ctx.pool.name if ctx.pool is not None else "",
        "prompt_tokens": answer.totals.prompt_tokens,
        "completion_tokens": answer.totals.completion_tokens,
        "cached_tokens": answer.totals.cached_tokens,
        "overhead_ms": round(ctx.overhead_s * 1e3, 3),
        "termination": termination.upper(),
        "reason": ctx.reason,
    }
    if answer.first_bytes_s is not None:
        facts["ttft_ms"] = round((answer.first_bytes_s - ctx.arrived_s) * 1e3, 3)
    return facts
