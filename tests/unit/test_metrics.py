"""Metrics: their number does not grow with callers, and the page about them names every one."""

import pathlib
import runpy
from typing import Any

import pytest

from extproc.exchange.messages import RequestBody, RequestHeaders, ResponseBody, ResponseHeaders
from extproc.principal import Principal
from tests.helpers.journeys import Inside

DOCS = pathlib.Path(__file__).parents[2] / "docs"
KEYS = 20_000
_NEVER = {"key", "principal", "team", "user", "request_id", "trace_id", "path"}
HEAD = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"}
ASK = b'{"model": "talker", "messages": [{"role": "user", "content": "Hi"}]}'
SAID = (
    b'{"id": "x", "object": "chat.completion", "created": 1, "model": "up", "choices": [{"index": 0, "message":'
    b' {"role": "assistant", "content": "Ho"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 8,'
    b' "completion_tokens": 1, "total_tokens": 9}}'
)


class EveryKey:
    """Knows every key, each of a team of its own."""

    degraded = False

    async def authenticate(self, key: str) -> Principal | None:
        return Principal(f"key-{key}", f"team-{key}", ("free", "pro")[len(key) % 2], frozenset({"*"}))


async def ask(inside: Inside, number: int) -> None:
    headers = {**HEAD, "authorization": f"Bearer sk-xp-{number}", "x-request-id": f"r{number}"}
    answer = {":status": "200", "content-type": "application/json"}
    await inside.exchange(
        [RequestHeaders(headers), RequestBody(ASK, True), ResponseHeaders(answer), ResponseBody(SAID, True)]
    )


def series(inside: Inside) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for metric in inside.registry.collect()
        for sample in metric.samples
    }


async def test_many_keys_make_no_more_series_than_a_few(tmp_path: pathlib.Path) -> None:
    inside = Inside(tmp_path, keys=EveryKey())
    for number in range(20):
        await ask(inside, number)
    few = series(inside)
    for number in range(20, KEYS):
        await ask(inside, number)
    assert series(inside) == few
    assert inside.metric("extproc_exchanges_total", operation="chat", model="talker", pool="openai",
                         termination="completed", reason="") == KEYS  # fmt: skip


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "metrics.py"))


@pytest.fixture(scope="module")
def declared(script: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Every metric that a worker or its supervisor can show: name, labels, type, text."""
    found: list[Any] = script["rows"](tmp_path_factory.mktemp("inside"))
    return found


def test_no_metric_is_labelled_by_who_asks(declared: list[Any]) -> None:
    assert {name: labels for name, labels, *_ in declared if _NEVER & set(labels)} == {}


def test_the_page_has_every_metric(script: dict[str, Any], declared: list[Any]) -> None:
    current = (DOCS / "telemetry.md").read_text()
    assert script["page"](current, declared) == current, "run `PYTHONPATH=. python docs/metrics.py`"
