"""The caches' metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


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
