"""Exemplars of several processes' histograms, as the one that is scraped sees them."""

import math
import os
import pathlib
from collections.abc import Iterator
from unittest import mock

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

from extproc.telemetry.exemplars import SLOTS, Exemplars, WithExemplars, latest

BOUNDS = (1.0, 2.5, math.inf)


def buckets(found: dict[tuple[str, tuple[tuple[str, str], ...]], Exemplar]) -> dict[str, str]:
    """Trace by upper bound."""
    return {dict(labels)["le"]: exemplar.labels["trace_id"] for (_, labels), exemplar in found.items()}


def test_the_last_trace_of_each_bucket_is_kept(tmp_path: pathlib.Path) -> None:
    exemplars = Exemplars(str(tmp_path))
    for value, trace in ((0.5, "a"), (1.0, "b"), (1.1, "c"), (99.0, "d")):
        exemplars.keep("s", BOUNDS, {"model": "m"}, value, trace)
    assert buckets(latest(str(tmp_path))) == {"1.0": "b", "2.5": "c", "+Inf": "d"}


def test_the_latest_of_all_processes_wins(tmp_path: pathlib.Path) -> None:
    for pid, trace in ((1, "early"), (2, "late")):
        with mock.patch.object(os, "getpid", return_value=pid):
            Exemplars(str(tmp_path)).keep("s", BOUNDS, {}, 0.5, trace)
    assert buckets(latest(str(tmp_path))) == {"1.0": "late"}


def test_without_a_directory_nothing_is_kept() -> None:
    Exemplars(None).keep("s", BOUNDS, {}, 0.5, "a")


def test_there_is_a_bound_to_them(tmp_path: pathlib.Path) -> None:
    exemplars = Exemplars(str(tmp_path))
    for number in range(SLOTS + 10):
        exemplars.keep("s", BOUNDS, {"model": f"m{number}"}, 0.5, "a")
    exemplars.keep("s", BOUNDS, {"model": "x" * 1000}, 0.5, "a")
    assert len(latest(str(tmp_path))) == SLOTS


def test_a_bucket_is_found_by_its_labels_in_any_order(tmp_path: pathlib.Path) -> None:
    registry = CollectorRegistry()
    histogram = Histogram("s", "S.", ("model", "kind"), buckets=BOUNDS[:-1], registry=registry)
    histogram.labels("m", "k").observe(0.5)
    Exemplars(str(tmp_path)).keep("s", BOUNDS, {"kind": "k", "model": "m"}, 0.5, "a" * 32)
    page = generate_latest(WithExemplars(_Only(registry), latest(str(tmp_path)))).decode()
    (family,) = text_string_to_metric_families(page)
    marked = [sample for sample in family.samples if sample.exemplar is not None]
    assert [(sample.labels["le"], sample.exemplar.labels) for sample in marked if sample.exemplar] == [
        ("1.0", {"trace_id": "a" * 32})
    ]


class _Only:
    """A registry as a collector."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[object]:
        return iter(self._registry.collect())
