"""What the live view needs of the service's metrics, read off them at one moment; and what changed between two.

Pure. Only names that `telemetry/metrics.py` and the collectors beside it give out are known here; one that is missing
(an experiment's, where there is none) reads as nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

from msgspec import Struct
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

Labels = tuple[str, ...]

# Counters, and gauges that are amounts of something now.
_COUNTS: Mapping[str, tuple[str, Labels]] = {
    "extproc_exchanges_total": ("exchanges", ("termination",)),
    "extproc_cache_lookups_total": ("lookups", ("level", "result")),
    "extproc_cache_saved_tokens_total": ("saved_tokens", ("level",)),
    "extproc_verdicts_total": ("verdicts", ("policy", "verdict", "mode", "reason")),
    "extproc_arm_exchanges_total": ("arms", ("experiment", "arm", "termination")),
    "extproc_admissions_total": ("admissions", ("pool", "priority", "outcome")),
    "extproc_pool_requests": ("pool_requests", ("pool", "priority")),
    "extproc_pool_tokens": ("pool_tokens", ("pool", "priority")),
    "extproc_pool_waiting": ("pool_waiting", ("pool", "priority")),
    "gen_ai_client_token_usage_sum": ("tokens", ("gen_ai_token_type",)),
}
_HISTOGRAMS: Mapping[str, tuple[str, Labels]] = {
    "gen_ai_server_request_duration_seconds_bucket": ("duration_s", ()),
    "gen_ai_server_time_to_first_token_seconds_bucket": ("first_token_s", ()),
    "extproc_arm_first_token_seconds_bucket": ("arm_first_token_s", ("experiment", "arm")),
    "extproc_queue_wait_seconds_bucket": ("wait_s", ("priority",)),
    "extproc_queue_position_bucket": ("position", ("priority",)),
}

Counts = Counter[Labels]
Buckets = dict[float, float]


class Reading(Struct, kw_only=True):
    """Everything since the service started, at `at_s` (monotonic). Counts are by label values, buckets cumulative by
    their upper bound (in seconds, but for positions)."""

    at_s: float
    counts: dict[str, Counts]
    buckets: dict[str, dict[Labels, Buckets]]
    in_flight: float = 0.0
    degraded: tuple[str, ...] = ()

    def count(self, name: str) -> Counts:
        return self.counts.get(name, Counter())

    def total(self, name: str) -> float:
        return sum(self.count(name).values())

    def histogram(self, name: str, labels: Labels = ()) -> Buckets:
        return self.buckets.get(name, {}).get(labels, {})


def read(metrics: Iterable[Metric], at_s: float) -> Reading:
    """The reading of one moment."""
    reading = Reading(at_s=at_s, counts={}, buckets={})
    for metric in metrics:
        for sample in metric.samples:
            _take(reading, sample)
    return reading


def _take(reading: Reading, sample: Sample) -> None:
    if sample.name in _COUNTS:
        name, labels = _COUNTS[sample.name]
        values = tuple(sample.labels.get(label, "") for label in labels)
        reading.counts.setdefault(name, Counter())[values] += sample.value  # type: ignore[assignment]
    elif sample.name in _HISTOGRAMS:
        name, labels = _HISTOGRAMS[sample.name]
        values = tuple(sample.labels.get(label, "") for label in labels)
        buckets = reading.buckets.setdefault(name, {}).setdefault(values, {})
        bound = float(sample.labels["le"])
        buckets[bound] = buckets.get(bound, 0.0) + sample.value
    elif sample.name == "extproc_streams_in_flight":
        reading.in_flight += sample.value
    elif sample.name == "extproc_degraded" and sample.value:
        reading.degraded = (*reading.degraded, sample.labels.get("policy", ""))


def grown(now: Counts, before: Counts) -> Counts:
    """What was counted in between, without what was not."""
    return Counter({labels: value - before[labels] for labels, value in now.items() if value > before[labels]})


def added(now: Buckets, before: Buckets) -> list[tuple[float, float]]:
    """How many observations fell into each bucket in between: its upper bound and its own count, not cumulative."""
    below, own = 0.0, []
    for bound in sorted(now):
        upto = now[bound] - before.get(bound, 0.0)
        own.append((bound, max(0.0, upto - below)))
        below = max(below, upto)
    return own


def quantile(buckets: Iterable[tuple[float, float]], share: float) -> float | None:
    """The value below which `share` of the observations lie, interpolated within its bucket; None without any.

    One in the last, open bucket is at least its lower bound, and that is what is given.
    """
    found = list(buckets)
    rank = share * sum(count for _, count in found)
    if rank <= 0:
        return None
    below = 0.0
    for (lower, _), (upper, count) in pairwise([(0.0, 0.0), *found]):
        if count and below + count >= rank:
            return lower if upper == float("inf") else lower + (upper - lower) * (rank - below) / count
        below += count
    return None
