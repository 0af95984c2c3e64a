"""What the service says about exchanges: the usage lines in its log, and the series on its /metrics."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import httpx

from extproc.stack.stack import SERVICE, Stack
from tests.helpers.processes import wait_until

Labels = frozenset[tuple[str, str]]

_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def log_lines(log: pathlib.Path) -> list[dict[str, Any]]:
    """The whole JSON lines of a log; what is not JSON is left out."""
    lines = log.read_text(errors="replace").split("\n")[:-1]
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def usage_events(log: pathlib.Path) -> list[dict[str, Any]]:
    """Every usage event in the log of a service."""
    return [line for line in log_lines(log) if line.get("message") == "usage"]


def usage_of(log: pathlib.Path, request_id: str) -> dict[str, Any]:
    """The usage event of one request, waited for: finalizers may run when the client has its answer already."""
    found: list[dict[str, Any]] = []

    def arrived() -> bool:
        found[:] = [event for event in usage_events(log) if event["id"] == request_id]
        return bool(found)

    assert wait_until(arrived), f"no usage event for {request_id}"
    (event,) = found
    return event


def usage_in(stack: Stack, request_id: str) -> dict[str, Any]:
    """`usage_of` for the local stack's own service."""
    return usage_of(stack.process(SERVICE).log, request_id)


class Scrape:
    """/metrics as it is now."""

    def __init__(self, admin_port: int) -> None:
        page = httpx.get(f"http://127.0.0.1:{admin_port}/metrics").text
        self.series: dict[tuple[str, Labels], float] = {
            (name, frozenset(_LABEL.findall(labels))): float(value) for name, labels, value in _SERIES.findall(page)
        }

    def value(self, name: str, **labels: str) -> float:
        """The sum over the series of this name that have these labels, whatever others they have."""
        wanted = labels.items()
        return sum(value for (found, its), value in self.series.items() if found == name and wanted <= set(its))

    def label_values(self, name: str) -> Mapping[str, set[str]]:
        """Every value of every label of the series of this name."""
        values: dict[str, set[str]] = {}
        for found, labels in self.series:
            if found == name:
                for label, value in labels:
                    values.setdefault(label, set()).add(value)
        return values


def in_flight(admin_port: int) -> float:
    """How many exchanges are open."""
    return Scrape(admin_port).value("extproc_streams_in_flight")
