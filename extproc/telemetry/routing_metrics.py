"""Where requests went, as metrics."""

from __future__ import annotations

import functools

from prometheus_client import CollectorRegistry, Counter

from extproc.telemetry.buckets import FIRST_TOKEN_S
from extproc.telemetry.values import QuickHistogram


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
            buckets=FIRST_TOKEN_S, registry=registry,
        )  # fmt: skip
        self._fallbacks = Counter(
            "extproc_fallbacks_total", "Other pools tried for what a pool failed to answer.", ("pool", "to", "outcome"),
            registry=registry,
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

    def fell_back(self, pool: str, to: str, outcome: str) -> None:
        """`outcome`: answered, failed, or unfit (the other pool can't take this request)."""
        self._fallbacks.labels(pool, to, outcome).inc()
