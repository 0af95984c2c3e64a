"""Writes the table of metrics in telemetry.md from what a worker and its supervisor register; a test asserts that it is
up to date.

Run `PYTHONPATH=. python docs/metrics.py` after adding a metric.
"""

import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from prometheus_client.registry import Collector

from extproc import config
from extproc.config.policy import PolicyMode
from extproc.model_loader import ModelLoader
from extproc.policies import pipeline
from extproc.routing.load_poller import LoadPoller, Watched
from extproc.stores.ledger_feed import LedgerFeed
from tests.helpers.journeys import CONFIG, Inside

PAGE = pathlib.Path(__file__).parent / "telemetry.md"
BEGIN, END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->\n"
Row = tuple[str, tuple[str, ...], str, str]
"""Name, labels, type, text."""


class _NoSpool:
    def waiting_bytes(self) -> int:
        return 0


def rows(directory: pathlib.Path) -> list[Row]:
    """Every metric, with every policy on, in alphabetical order."""
    everything = {name: settings(mode=PolicyMode.ENFORCE) for name, settings in pipeline.SETTINGS.items()}
    registry: Any = Inside(directory, everything).registry
    found = [
        (_name(one._name, one._type), one._labelnames, one._type, one._documentation)
        for one in registry._collector_to_names
    ]
    return sorted([*found, *_of_the_supervisor(directory)])


def _of_the_supervisor(directory: pathlib.Path) -> Iterator[Row]:
    loaded = config.parse(CONFIG.format(secret="a-secret-of-enough-letters", key_hash="0" * 64), {}, {})  # noqa: S106
    feed: Any = LedgerFeed
    nobody: Any = None
    collectors: list[Collector] = [LoadPoller(directory / "board", Watched(loaded)), feed(_NoSpool(), None)]
    collectors.append(ModelLoader(loaded, nobody))
    for collector in collectors:
        for metric in collector.collect():
            yield _name(metric.name, metric.type), getattr(metric, "_labelnames", ()), metric.type, metric.documentation


def _name(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def table(every: list[Row]) -> str:
    head = "| metric | labels | type | |\n|---|---|---|---|\n"
    return head + "".join(
        f"| `{name}` | {', '.join(f'`{label}`' for label in labels)} | {kind} | {text} |\n"
        for name, labels, kind, text in every
    )


def page(current: str, every: list[Row]) -> str:
    """The page with its table replaced."""
    before, rest = current.split(BEGIN)
    return before + BEGIN + "\n" + table(every) + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        PAGE.write_text(page(PAGE.read_text(), rows(pathlib.Path(scratch))))
