"""Numbers that several processes' metrics are added up from: what the collector reads is what was counted."""

import pathlib
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from extproc.telemetry.values import QuickHistogram, share_values

BUCKETS = (0.1, 1.0, 10.0)
AMOUNTS = (0.0, 0.1, 0.10001, 1.0, 9.99, 10.0, 10.1, 1e9)


@pytest.fixture
def directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)  # put back afterwards
    share_values(str(tmp_path))
    yield tmp_path
    for file in values.ValueClass.files.values():
        file.close()


def collected(directory: pathlib.Path) -> dict[str, float]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_counters_and_gauges(directory: pathlib.Path) -> None:
    counter = Counter("c", "text", ("label",), registry=None)
    counter.labels("a").inc()
    counter.labels("a").inc(2.5)
    counter.labels("b").inc()
    gauge = Gauge("g", "text", registry=None, multiprocess_mode="livesum")
    gauge.inc(3)
    gauge.dec()
    highest = Gauge("h", "text", registry=None, multiprocess_mode="livemax")
    highest.set(7)
    highest.set(1)
    assert collected(directory) == {'c_total{label="a"}': 3.5, 'c_total{label="b"}': 1.0, "g": 2.0, "h": 1.0}


def test_a_histogram_sorts_as_prometheus_clients_does(directory: pathlib.Path) -> None:
    quick = QuickHistogram("quick", "text", ("label",), buckets=BUCKETS, registry=None)
    usual = Histogram("usual", "text", ("label",), buckets=BUCKETS, registry=None)
    for amount in AMOUNTS:
        quick.labels("a").observe(amount)
        usual.labels("a").observe(amount)
    samples = collected(directory)
    assert samples['quick_count{label="a"}'] == len(AMOUNTS)
    assert samples['quick_sum{label="a"}'] == sum(AMOUNTS)
    quicks = {name.removeprefix("quick"): value for name, value in samples.items() if name.startswith("quick")}
    assert quicks == {name.removeprefix("usual"): value for name, value in samples.items() if name.startswith("usual")}


def test_what_was_there_before_its_file_grew_goes_on_counting(directory: pathlib.Path) -> None:
    counter = Counter("c", "text", ("label",), registry=None)
    first = counter.labels("first")
    first.inc()
    size_bytes = next(directory.iterdir()).stat().st_size
    for number in range(2000):
        counter.labels(str(number)).inc()
    assert next(directory.iterdir()).stat().st_size > size_bytes
    first.inc()
    assert collected(directory)['c_total{label="first"}'] == 2.0
