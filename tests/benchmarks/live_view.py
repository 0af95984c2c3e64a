"""What one reading of the live view costs, with as many series as there may be.

Run `python -m tests.benchmarks.live_view [MODELS]`. Two workers' files are written as the service writes them.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import time

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from extproc.admin.readings import read
from extproc.telemetry.metrics import RUN_DIR, Metrics, pin_process

_READINGS = 15


def worker(models: int) -> None:
    """The series of so many models, all of them used."""
    pin_process()
    metrics = Metrics(CollectorRegistry())
    for model in range(models):
        name = f"model-{model}"
        series = metrics._models.series("chat", name)
        for histogram in (series.input_tokens, series.output_tokens, series.first_token_s, series.per_token_s):
            histogram.observe(0.3)
        metrics._models.duration("chat", name, "").observe(0.3)
        metrics._exchange_count("chat", name, f"pool-{model}", "completed", "").inc()


def main() -> None:
    models = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as directory:
        os.environ[RUN_DIR] = directory
        spawn = multiprocessing.get_context("spawn")
        for _ in range(2):
            process = spawn.Process(target=worker, args=(models,))
            process.start()
            process.join()
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
        series = sum(not line.startswith(b"#") for line in generate_latest(registry).splitlines())
        took_s = []
        for _ in range(_READINGS):
            began_s = time.perf_counter()
            read(registry.collect(), 0.0)
            took_s.append(time.perf_counter() - began_s)
    print(f"{series} series of 2 workers: {statistics.median(took_s) * 1e3:.0f} ms a reading")


if __name__ == "__main__":
    main()
