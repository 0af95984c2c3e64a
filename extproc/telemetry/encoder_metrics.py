"""The encoder's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_ENCODER_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_PROVIDERS = ("cpu", "cuda", "triton")
_BATCH_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)


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
