"""The series of pools whose endpoints the service chooses. Pools and endpoints are those of gateway.yaml."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class EndpointMetrics:
    """What was chosen, what is pending, and how old the word of others is."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._choices = Counter(
            "extproc_endpoint_choices_total", "Endpoints chosen for requests, by whether the chosen one answered.",
            ("pool", "strategy", "outcome"), registry=registry,
        )  # fmt: skip
        self._pending = Gauge(
            "extproc_endpoint_pending_tokens", "Tokens of requests on their way to an endpoint or at work there.",
            ("pool", "endpoint"), registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self._out = Gauge(
            "extproc_endpoint_out", "1 while an endpoint is chosen only where all others are out, too.",
            ("pool", "endpoint"), registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self._age = Gauge(
            "extproc_endpoint_sums_age_seconds", "Age of what is known of other workers' pending tokens.",
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip

    def chosen(self, pool: str, strategy: str, outcome: str) -> None:
        """`outcome`: as_chosen, another (the chosen one failed), no_answer."""
        self._choices.labels(pool, strategy, outcome).inc()

    def now(self, pool: str, endpoint: str, pending_tokens: int, is_out: bool) -> None:
        """This worker's tokens there, and whether the worker keeps it out."""
        self._pending.labels(pool, endpoint).set(pending_tokens)
        self._out.labels(pool, endpoint).set(is_out)

    def age(self, seconds: float) -> None:
        self._age.set(seconds)
