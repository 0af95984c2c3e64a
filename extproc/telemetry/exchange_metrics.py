"""The metrics of exchanges, which are told when they end.

GenAI names follow OpenTelemetry's semantic conventions, spelled as Prometheus spells them.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from extproc.telemetry.buckets import FIRST_TOKEN_S
from extproc.telemetry.exemplars import Exemplars
from extproc.telemetry.routing_metrics import RoutingMetrics
from extproc.telemetry.values import QuickHistogram

if TYPE_CHECKING:
    from extproc.policies.context import RequestContext
    from extproc.policies.interface import Termination

_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
# The semantic conventions' own, which go on at both ends: for long answers, and for models that write hundreds of
# tokens a second.
_DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68)
_PER_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_OVERHEAD_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_NANO = 1e9
_MODEL = ("gen_ai_operation_name", "gen_ai_request_model", "gen_ai_provider_name")
_PROVIDER = "triton"
_DURATION = "gen_ai_server_request_duration_seconds"
_FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"  # noqa: S105 (no password)


@dataclass(frozen=True, slots=True)
class _ModelSeries:
    """The series of one operation and model."""

    input_tokens: Histogram
    output_tokens: Histogram
    first_token_s: Histogram
    per_token_s: Histogram


class _ModelMetrics:
    """The GenAI metrics, which are by operation and model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, label: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram:
            return QuickHistogram(name, text, (*_MODEL, *label), buckets=buckets, registry=registry)

        self._tokens = histogram("gen_ai_client_token_usage", "Tokens per request.", ("gen_ai_token_type",), _TOKENS)
        self._duration = histogram(
            _DURATION, "Request headers to the end of the answer.", ("error_type",),
            _DURATION_S,
        )  # fmt: skip
        self._first_token = histogram(
            _FIRST_TOKEN, "Request headers to the first answer bytes.", (),
            FIRST_TOKEN_S,
        )  # fmt: skip
        self._per_token = histogram(
            "gen_ai_server_time_per_output_token_seconds", "Streamed time per token after the first.", (), _PER_TOKEN_S
        )
        # Looking a child up by its labels costs more than counting in it.
        self.series = functools.cache(self._make_series)
        self.duration = functools.cache(
            lambda operation, model, error: self._duration.labels(operation, model, _PROVIDER, error)
        )

    def _make_series(self, operation: str, model: str) -> _ModelSeries:
        labels = (operation, model, _PROVIDER)
        return _ModelSeries(
            self._tokens.labels(*labels, "input"),
            self._tokens.labels(*labels, "output"),
            self._first_token.labels(*labels),
            self._per_token.labels(*labels),
        )


class ExchangeMetrics:
    """How exchanges ended, how long they took, and what they cost."""

    def __init__(self, registry: CollectorRegistry, routing: RoutingMetrics, exemplars: Exemplars) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self._models = _ModelMetrics(registry)
        self._routing = routing
        self._exemplars = exemplars
        self._overhead = QuickHistogram(
            "extproc_overhead_seconds", "Time a request spent in this service.", buckets=_OVERHEAD_S, registry=registry
        )
        ended = counter(
            "extproc_exchanges_total", "Exchanges ended.", ("operation", "model", "pool", "termination", "reason")
        )
        cost = counter("extproc_cost_total", "Money that requests cost.", ("model", "tier", "currency"))
        without = counter(
            "extproc_degraded_exchanges_total", "Exchanges for which a policy did without a dependency.", ("policy",)
        )
        self._ended = functools.cache(ended.labels)
        self._cost = functools.cache(cost.labels)
        self._without = functools.cache(without.labels)
        self.in_flight = Gauge(
            "extproc_streams_in_flight", "Exchanges now open.", registry=registry, multiprocess_mode="livesum"
        )

    def ended(self, ctx: RequestContext, termination: Termination, duration_s: float) -> None:
        progress, model = ctx.progress, ctx.model_name
        pool = ctx.serving_pool.name if ctx.serving_pool is not None else ""
        self._ended(ctx.operation, model, pool, termination, ctx.reason).inc()
        self._overhead.observe(progress.overhead_s)
        for policy in ctx.degraded:
            self._without(policy).inc()
        if ctx.destination is not None and ctx.destination.taken is not None:
            taken, first_s = ctx.destination.taken, progress.first_bytes_s
            ttft_s = None if first_s is None else first_s - ctx.arrived_s
            self._routing.arm_ended(taken.experiment, taken.arm, termination, ttft_s)
        if not model:
            return
        series = self._models.series(ctx.operation, model)
        self._models.duration(ctx.operation, model, ctx.reason).observe(duration_s)
        if ctx.trace is not None:
            self._keep_exemplars(ctx, ctx.trace.trace_id.hex(), duration_s)
        output_tokens = progress.totals.completion_tokens
        if progress.totals.prompt_tokens:
            series.input_tokens.observe(progress.totals.prompt_tokens)
        if output_tokens:
            series.output_tokens.observe(output_tokens)
        if progress.first_bytes_s is None or progress.last_bytes_s is None:
            return
        series.first_token_s.observe(progress.first_bytes_s - ctx.arrived_s)
        if ctx.stream and output_tokens > 1:
            series.per_token_s.observe((progress.last_bytes_s - progress.first_bytes_s) / (output_tokens - 1))

    def _keep_exemplars(self, ctx: RequestContext, trace_id: str, duration_s: float) -> None:
        labels = dict(zip(_MODEL, (ctx.operation, ctx.model_name, _PROVIDER), strict=True))
        ended = {**labels, "error_type": ctx.reason}
        self._exemplars.keep(_DURATION, (*_DURATION_S, math.inf), ended, duration_s, trace_id)
        if ctx.progress.first_bytes_s is not None:
            first_s = ctx.progress.first_bytes_s - ctx.arrived_s
            self._exemplars.keep(_FIRST_TOKEN, (*FIRST_TOKEN_S, math.inf), labels, first_s, trace_id)

    def cost(self, model: str, tier: str, currency: str, nano: int) -> None:
        """What one exchange cost, in billionths of `currency`."""
        self._cost(model, tier, currency).inc(nano / _NANO)
