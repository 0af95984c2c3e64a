"""The series of models that are loaded on demand. `mesh` and `model` are those of gateway.yaml."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

_LOAD_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_MODEL = ("mesh", "model")


class ModelMeshMetrics:
    """What requests had to wait for, and what was loaded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "extproc_model_requests_total", "Requests for models that are loaded on demand, by how they came to them.",
            (*_MODEL, "outcome"), registry=registry,
        )  # fmt: skip
        self._wait_s = Histogram(
            "extproc_model_wait_seconds", "Waits for a model to be loaded.", ("mesh",), buckets=_LOAD_S,
            registry=registry,
        )  # fmt: skip
        self._steps = Counter(
            "extproc_model_loads_total", "Models loaded and unloaded.", (*_MODEL, "outcome"), registry=registry
        )
        self._load_s = Histogram(
            "extproc_model_load_seconds", "What loading took.", _MODEL, buckets=_LOAD_S, registry=registry
        )

    def ended(self, mesh: str, model: str, outcome: str) -> None:
        """`outcome`: at_once, waited, full, too_long, failed, left."""
        self._requests.labels(mesh, model, outcome).inc()

    def waited(self, mesh: str, seconds: float) -> None:
        self._wait_s.labels(mesh).observe(seconds)

    def stepped(self, mesh: str, model: str, outcome: str) -> None:
        """`outcome`: loaded, load_failed, unloaded, unload_failed."""
        self._steps.labels(mesh, model, outcome).inc()

    def loaded(self, mesh: str, model: str, seconds: float) -> None:
        self._load_s.labels(mesh, model).observe(seconds)
