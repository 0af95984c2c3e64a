"""The metrics of the lines before pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

from extproc.telemetry.values import QuickHistogram

if TYPE_CHECKING:
    from extproc.admission import Use

_WAIT_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_POSITION = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)


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
