"""Every metric's name, labels and buckets. Label values come from closed sets only.

GenAI names follow OpenTelemetry's semantic conventions, spelled as Prometheus spells them. With several worker
processes `PROMETHEUS_MULTIPROC_DIR` makes prometheus_client keep the values in files that the supervisor adds up.
"""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from extproc.telemetry.exemplars import Exemplars
from extproc.telemetry.model_mesh_metrics import ModelMeshMetrics
from extproc.telemetry.values import QuickHistogram, share_values

if TYPE_CHECKING:
    from extproc.admission import Use
    from extproc.policies.context import RequestContext
    from extproc.policies.interface import Termination

RUN_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the directory that a supervisor shares with its workers: prometheus_client's values,
and beside them the tables of open exchanges."""

_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
# The three below are the semantic conventions' own, and go on at both ends: for long answers, for requests that wait
# in a queue, and for models that write hundreds of tokens a second.
_DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68)
_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0)
_PER_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_POLICY_S = (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_ENCODER_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_PROVIDERS = ("cpu", "cuda", "triton")
_BATCH_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)
_WAIT_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_POSITION = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)
_OVERHEAD_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_RELOADS = ("taken", "refused")
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


def pin_process() -> None:
    """Count as a process that never forks; call it before making Metrics."""
    if RUN_DIR in os.environ:
        share_values(os.environ[RUN_DIR])


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
            _FIRST_TOKEN_S,
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


class EncoderMetrics:
    """The encoder's series. Its methods may be called from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._waiting = Gauge(
            "extproc_encoder_waiting", "Texts that wait for the encoder.", registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self._batch_texts = Histogram(
            "extproc_encoder_batch_texts", "Texts computed together.", buckets=_BATCH_TEXTS, registry=registry
        )
        self._batch_s = Histogram(
            "extproc_encoder_batch_duration_seconds", "One pass of the model.", buckets=_ENCODER_S, registry=registry
        )
        self._call_s = Histogram(
            "extproc_encoder_duration_seconds", "From asking the encoder to its answer.", buckets=_ENCODER_S,
            registry=registry,
        )  # fmt: skip
        self._failures = Counter(
            "extproc_encoder_failures_total", "Calls of the encoder that failed.", ("reason",), registry=registry
        )
        self._provider = Gauge(
            "extproc_encoder_provider", "1 for where the encoder runs.", ("provider",), registry=registry,
            multiprocess_mode="livemax",
        )  # fmt: skip

    def waiting(self, more: int) -> None:
        """So many more wait; or fewer."""
        self._waiting.inc(more)

    def ran(self, texts: int, seconds: float) -> None:
        """One batch."""
        self._batch_texts.observe(texts)
        self._batch_s.observe(seconds)

    def took(self, seconds: float) -> None:
        """One call that was answered."""
        self._call_s.observe(seconds)

    def failed(self, reason: str) -> None:
        """`reason` is one of `inference.failure.Reason`."""
        self._failures.labels(reason).inc()

    def provider(self, name: str) -> None:
        """It runs there now: `cpu`, `cuda`, `triton`, or "" for nowhere."""
        for one in _PROVIDERS:
            self._provider.labels(one).set(1 if one == name else 0)


class CacheMetrics:
    """The caches' series. `level` is `exact` or `semantic`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self._lookups = counter("extproc_cache_lookups_total", "Requests that came to a cache.", ("level", "result"))
        self._saved = counter("extproc_cache_saved_tokens_total", "Tokens that no model had work with.", ("level",))
        self._waits = counter(
            "extproc_cache_waits_total", "Waits for an answer that another request fetches.", ("outcome",)
        )
        self._kept = counter("extproc_cache_kept_total", "Answers that were kept.")
        self._kept_bytes = counter("extproc_cache_kept_bytes_total", "Bytes of answers that were kept.")
        self._failed = counter("extproc_cache_not_kept_total", "Answers that the store did not take.", ("dependency",))
        self._gates = counter(
            "extproc_cache_semantic_candidates_total", "Questions near one, by where they ended.", ("gate",)
        )
        self._reports = counter("extproc_cache_reports_total", "Answers that users reported as wrong.", ("response",))
        self._evicted = counter("extproc_cache_evicted_total", "Answers that made room for others.")

    def looked_up(self, level: str, result: str) -> None:
        """`result` is one of `CacheResult`, or `failed`."""
        self._lookups.labels(level, result).inc()

    def saved(self, level: str, tokens: int) -> None:
        self._saved.labels(level).inc(tokens)

    def waited(self, outcome: str) -> None:
        """`outcome` is one of `caching.Outcome`, or `too_long`."""
        self._waits.labels(outcome).inc()

    def kept(self, answers: int, size_bytes: int) -> None:
        self._kept.inc(answers)
        self._kept_bytes.inc(size_bytes)

    def not_kept(self, dependency: str) -> None:
        self._failed.labels(dependency).inc()

    def evicted(self, answers: int) -> None:
        self._evicted.inc(answers)

    def judged(self, gate: str) -> None:
        """`gate` is one of `semantic_cache.Gate` or of `near_misses.NearMiss`."""
        self._gates.labels(gate).inc()

    def reported(self, known: bool) -> None:
        self._reports.labels("known" if known else "unknown").inc()


class AdmissionMetrics:
    """The series of the lines before pools. `priority` is `P0` to `P3`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:  # each worker tells the same of all of them together
            return Gauge(name, text, ("pool", "priority"), registry=registry, multiprocess_mode="livemostrecent")

        self._ended = Counter(
            "extproc_admissions_total", "Requests that came to a pool's line, by what became of them.",
            ("pool", "priority", "outcome"), registry=registry,
        )  # fmt: skip
        self._wait_s = QuickHistogram(
            "extproc_queue_wait_seconds", "Waits for a slot.", ("priority",), buckets=_WAIT_S, registry=registry
        )
        self._position = QuickHistogram(
            "extproc_queue_position", "Places that requests came to wait in.", ("priority",), buckets=_POSITION,
            registry=registry,
        )  # fmt: skip
        self._requests = gauge("extproc_pool_requests", "Requests at work in a pool, of all replicas.")
        self._tokens = gauge("extproc_pool_tokens", "Tokens of the requests at work in a pool, of all replicas.")
        self._waiting = gauge("extproc_pool_waiting", "Requests that wait for a pool, of all replicas.")

    def ended(self, pool: str, priority: str, outcome: str) -> None:
        """`outcome`: at_once, waited, full, shed, too_long, left."""
        self._ended.labels(pool, priority, outcome).inc()

    def queued(self, priority: str, position: int) -> None:
        self._position.labels(priority).observe(position)

    def waited(self, priority: str, seconds: float) -> None:
        self._wait_s.labels(priority).observe(seconds)

    def used(self, pool: str, use: Use) -> None:
        for gauge, amounts in (
            (self._requests, use.requests), (self._tokens, use.tokens), (self._waiting, use.waiting)
        ):  # fmt: skip
            for level, amount in enumerate(amounts):
                gauge.labels(pool, f"P{level}").set(amount)


class RoutingMetrics:
    """Where requests went. Rules, experiments and arms are those of gateway.yaml."""

    def __init__(self, registry: CollectorRegistry) -> None:
        rules = Counter("extproc_route_rules_total", "Requests by the rule they met.", ("rule",), registry=registry)
        arms = Counter(
            "extproc_arm_exchanges_total", "Exchanges of an experiment, ended.", ("experiment", "arm", "termination"),
            registry=registry,
        )  # fmt: skip
        first_token = QuickHistogram(
            "extproc_arm_first_token_seconds", "Request headers to the first answer bytes.", ("experiment", "arm"),
            buckets=_FIRST_TOKEN_S, registry=registry,
        )  # fmt: skip
        self._rule = functools.cache(rules.labels)
        self._arm = functools.cache(arms.labels)
        self._first_token = functools.cache(first_token.labels)

    def routed(self, rule: str) -> None:
        self._rule(rule).inc()

    def arm_ended(self, experiment: str, arm: str, termination: str, first_token_s: float | None) -> None:
        self._arm(experiment, arm, termination).inc()
        if first_token_s is not None:
            self._first_token(experiment, arm).observe(first_token_s)


class Metrics:
    """The service's metrics in one registry, with the few verbs the rest of the house uses."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._own: dict[str, Histogram] = {}
        self._own_counters: dict[str, Counter] = {}

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self._models = _ModelMetrics(registry)
        self._exemplars = Exemplars(os.environ.get(RUN_DIR))
        exchanges = counter(
            "extproc_exchanges_total", "Exchanges ended.", ("operation", "model", "pool", "termination", "reason")
        )
        self._overhead = QuickHistogram(
            "extproc_overhead_seconds", "Time a request spent in this service.", buckets=_OVERHEAD_S, registry=registry
        )
        policy_seconds = QuickHistogram(
            "extproc_policy_duration_seconds", "Time one exchange spent in one policy.", ("policy",),
            buckets=_POLICY_S, registry=registry,
        )  # fmt: skip
        self._verdicts = counter(
            "extproc_verdicts_total", "Verdicts other than continue.", ("policy", "verdict", "mode", "reason")
        )
        self._policy_failures = counter(
            "extproc_policy_failures_total", "Policies whose dependency failed, or which failed at the end.",
            ("policy", "dependency"),
        )  # fmt: skip
        self._fallbacks = counter(
            "extproc_fallbacks_total", "Other pools tried for what a pool failed to answer.", ("pool", "to", "outcome")
        )
        self._reloads = counter("extproc_config_reloads_total", "Configuration reloads.", ("outcome",))
        for outcome in _RELOADS:  # nothing refused is worth seeing, too
            self._reloads.labels(outcome)
        cost = counter("extproc_cost_total", "Money that requests cost.", ("model", "tier", "currency"))
        self._cost = functools.cache(cost.labels)
        self._without = counter(
            "extproc_degraded_exchanges_total", "Exchanges for which a policy did without a dependency.", ("policy",)
        )
        self._protocol_errors = counter("extproc_protocol_errors_total", "Streams on which Envoy broke its contract.")
        self._ledger_lost = counter(
            "extproc_ledger_lost_total", "Usage events that are in the log alone: the ledger's spool took no more."
        )
        self._audit_lost = counter("extproc_audit_lost_total", "Audit records that were never written.", ())
        self.in_flight = Gauge(
            "extproc_streams_in_flight", "Exchanges now open.", registry=registry, multiprocess_mode="livesum"
        )
        self._degraded = Gauge(
            "extproc_degraded", "1 while a policy does without a dependency.", ("policy",), registry=registry,
            multiprocess_mode="livemax",
        )  # fmt: skip
        self._spans = counter(
            "extproc_spans_total", "Spans of sampled exchanges, by what became of them.", ("outcome",)
        )
        self._exchange_count = functools.cache(exchanges.labels)
        self._policy_duration = functools.cache(policy_seconds.labels)
        self.encoder = EncoderMetrics(registry)
        self.cache = CacheMetrics(registry)
        self.admission = AdmissionMetrics(registry)
        self.routing = RoutingMetrics(registry)
        self.model_mesh = ModelMeshMetrics(registry)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
        """A policy's own histogram; the same one again after a reload."""
        if name not in self._own:
            self._own[name] = Histogram(name, text, labels, buckets=buckets, registry=self._registry)
        return self._own[name]

    def counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        """A policy's own counter; the same one again after a reload."""
        if name not in self._own_counters:
            self._own_counters[name] = Counter(name, text, labels, registry=self._registry)
        return self._own_counters[name]

    def exchange_ended(self, ctx: RequestContext, termination: Termination, duration_s: float) -> None:
        progress, model = ctx.progress, ctx.model_name
        pool = ctx.serving_pool.name if ctx.serving_pool is not None else ""
        self._exchange_count(ctx.operation, model, pool, termination, ctx.reason).inc()
        self._overhead.observe(progress.overhead_s)
        for policy in ctx.degraded:
            self._without.labels(policy).inc()
        if ctx.destination is not None and ctx.destination.taken is not None:
            taken, first_s = ctx.destination.taken, progress.first_bytes_s
            ttft_s = None if first_s is None else first_s - ctx.arrived_s
            self.routing.arm_ended(taken.experiment, taken.arm, termination, ttft_s)
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
            self._exemplars.keep(_FIRST_TOKEN, (*_FIRST_TOKEN_S, math.inf), labels, first_s, trace_id)

    def cost(self, model: str, tier: str, currency: str, nano: int) -> None:
        """What one exchange cost, in billionths of `currency`."""
        self._cost(model, tier, currency).inc(nano / _NANO)

    def policies_took(self, step_s: dict[str, float]) -> None:
        """Seconds one exchange spent in each policy."""
        for policy, seconds in step_s.items():
            self._policy_duration(policy).observe(seconds)

    def verdict(self, policy: str, verdict: str, mode: str, reason: str) -> None:
        self._verdicts.labels(policy, verdict, mode, reason).inc()

    def dependency_failed(self, policy: str, dependency: str) -> None:
        self._policy_failures.labels(policy, dependency).inc()

    def policy_failed(self, policy: str) -> None:
        self._policy_failures.labels(policy, "none").inc()

    def fell_back(self, pool: str, to: str, outcome: str) -> None:
        """`outcome`: answered, failed, or unfit (the other pool can't take this request)."""
        self._fallbacks.labels(pool, to, outcome).inc()

    def reloaded(self, outcome: str) -> None:
        self._reloads.labels(outcome).inc()

    def ledger_lost(self) -> None:
        self._ledger_lost.inc()

    def audit_lost(self) -> None:
        self._audit_lost.inc()

    def spans(self, outcome: str, count: int) -> None:
        """`outcome` is one of `edge.otlp.Outcome`."""
        self._spans.labels(outcome).inc(count)

    def protocol_error(self) -> None:
        self._protocol_errors.inc()

    def degraded(self, policy: str, now: bool) -> None:
        self._degraded.labels(policy).set(1 if now else 0)
