"""The service's metrics in one registry: those of policies, of the configuration and of what is lost here, the others
in modules by what they are about. Label values come from closed sets only.

With several worker processes `PROMETHEUS_MULTIPROC_DIR` makes prometheus_client keep the values in files that the
supervisor adds up.
"""

from __future__ import annotations

import functools
import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from extproc.telemetry.admission_metrics import AdmissionMetrics
from extproc.telemetry.cache_metrics import CacheMetrics
from extproc.telemetry.encoder_metrics import EncoderMetrics
from extproc.telemetry.exchange_metrics import ExchangeMetrics
from extproc.telemetry.exemplars import Exemplars
from extproc.telemetry.routing_metrics import RoutingMetrics
from extproc.telemetry.values import QuickHistogram, share_values

RUN_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the directory that a supervisor shares with its workers: prometheus_client's values,
and beside them the tables of open exchanges."""

_POLICY_S = (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_RELOADS = ("taken", "refused")


def pin_process() -> None:
    """Count as a process that never forks; call it before making Metrics."""
    if RUN_DIR in os.environ:
        share_values(os.environ[RUN_DIR])


class Metrics:
    """The service's metrics in one registry, with the few verbs the rest of the house uses."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._own: dict[str, Histogram] = {}
        self._own_counters: dict[str, Counter] = {}

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

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
        self._reloads = counter("extproc_config_reloads_total", "Configuration reloads.", ("outcome",))
        for outcome in _RELOADS:  # nothing refused is worth seeing, too
            self._reloads.labels(outcome)
        self._protocol_errors = counter("extproc_protocol_errors_total", "Streams on which Envoy broke its contract.")
        self._ledger_lost = counter(
            "extproc_ledger_lost_total", "Usage events that are in the log alone: the ledger's spool took no more."
        )
        self._audit_lost = counter("extproc_audit_lost_total", "Audit records that were never written.", ())
        self._degraded = Gauge(
            "extproc_degraded", "1 while a policy does without a dependency.", ("policy",), registry=registry,
            multiprocess_mode="livemax",
        )  # fmt: skip
        self._spans = counter(
            "extproc_spans_total", "Spans of sampled exchanges, by what became of them.", ("outcome",)
        )
        self._policy_duration = functools.cache(policy_seconds.labels)
        self.encoder = EncoderMetrics(registry)
        self.cache = CacheMetrics(registry)
        self.admission = AdmissionMetrics(registry)
        self.routing = RoutingMetrics(registry)
        self.exchanges = ExchangeMetrics(registry, self.routing, Exemplars(os.environ.get(RUN_DIR)))

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
