"""What a running service says of the requests it was sent: its usage events and its open streams."""

import json
import pathlib
import re
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.helpers.processes import wait_until

if TYPE_CHECKING:
    from extproc.stack.stack import Stack

_TIMEOUT_S = 15.0


@dataclass
class Entries:
    """The usage events of what happened in one `accounted` block, once it is left; the last is `only` if it is one."""

    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def only(self) -> Mapping[str, Any]:
        (event,) = self.events
        return event

    def outcomes(self) -> Sequence[tuple[str, str, int]]:
        """Termination, reason and status of each."""
        return [(event["termination"], event["reason"], event["status"]) for event in self.events]


class Books:
    """The usage events in a service's log, and its metrics."""

    def __init__(self, log: pathlib.Path, admin: str) -> None:
        self._log = log
        self._admin = admin

    def events(self, after_bytes: int = 0) -> list[dict[str, Any]]:
        with self._log.open("rb") as log:
            log.seek(after_bytes)
            lines = log.read().split(b"\n")[:-1]  # the last one may not be whole
        return [json.loads(line) for line in lines if line.startswith(b'{"message":"usage"')]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series with these labels; 0 if there is none."""
        with urllib.request.urlopen(f"http://{self._admin}/metrics", timeout=5) as response:
            page = response.read().decode()
        series = re.findall(rf"^{name}(?:\{{([^}}]*)\}})? (\S+)$", page, re.MULTILINE)
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        return sum(float(value) for given, value in series if wanted <= set(given.split(",")))

    def in_flight(self) -> float:
        return self.metric("extproc_streams_in_flight")

    @contextmanager
    def accounted(self, requests: int = 1) -> Iterator[Entries]:
        """Assert that the block's requests cause just so many usage events, one each, and that no stream stays open."""
        assert wait_until(lambda: self.in_flight() == 0, _TIMEOUT_S), "a stream of something before is still open"
        begin = self._log.stat().st_size
        entries = Entries()
        yield entries

        def settled() -> bool:
            return len(self.events(begin)) >= requests and self.in_flight() == 0

        assert wait_until(settled, _TIMEOUT_S), (self.in_flight(), self.events(begin))
        entries.events = self.events(begin)
        assert len(entries.events) == requests, entries.events
        assert len({event["id"] for event in entries.events}) == requests, entries.events

    def assert_each_accounted_once(self) -> None:
        """No request of the service's whole life has two events."""
        ids = [event["id"] for event in self.events()]
        assert len(ids) == len(set(ids))


def books_of(stack: "Stack") -> Books:
    """The books of the local stack's service."""
    return Books(stack.logs / "service.log", str(stack.config.service.admin))


def upstream_requests(stack: "Stack") -> float:
    """How many requests the stack's Tritons have been sent since they started, whatever came of them."""
    return sum(
        _sum(f"127.0.0.1:{ports.metrics}", "nv_inference_request_(?:success|failure)")
        for ports in (stack.settings.ports.triton_a, stack.settings.ports.triton_b)
    )


def triton_metric(stack: "Stack", name: str) -> float:
    """The sum of a metric over both Tritons."""
    return sum(
        _sum(f"127.0.0.1:{ports.metrics}", name)
        for ports in (stack.settings.ports.triton_a, stack.settings.ports.triton_b)
    )


def _sum(address: str, pattern: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
        page = response.read().decode()
    return sum(float(value) for value in re.findall(rf"^{pattern}(?:\{{[^}}]*\}})? (\S+)$", page, re.MULTILINE))
