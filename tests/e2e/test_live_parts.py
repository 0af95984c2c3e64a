"""Experiments and lines on the live view: real arms and real waits, with the numbers that clients saw themselves."""

from __future__ import annotations

import asyncio
import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from extproc.admin.live import wilson
from extproc.stack.stack import Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.browser import browsing
from tests.helpers.processes import wait_until
from tests.helpers.stack import CONFIG

SECTIONS = """
experiments:
  llm-v2:
    control: current
    sticky: user
    arms: {current: {pool: demo, weight: 50}, next: {pool: demo-next, weight: 50}}
pools:
  demo-next:
    dialect: triton-generate
    model: demo_llm
    clusters: {triton-b: {endpoints: ["127.0.0.1:${EXTPROC_TRITON_B_HTTP_PORT}"]}}
policies:
  route: {rules: [{name: new-version, when: {models: [demo-llm], headers: {x-part: "yes"}}, to: {experiment: llm-v2}}]}
  cache: {mode: "off"}
  admit: {pools: {demo: {requests: 1, queue_length: 8}}}
"""
FAILS = "[[demo:error-before]]Hello"
ENDLESS = "[[demo:ttft_ms=60000]]Hello"


@pytest.fixture(scope="module")
def gateway(_session_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBeside]:
    config = yaml.safe_load(CONFIG.read_text())
    for section, content in yaml.safe_load(SECTIONS).items():
        config[section] = config.get(section, {}) | content
    beside = GatewayBeside(_session_stack, tmp_path_factory.mktemp("gateway"), yaml.safe_dump(config), workers=2)
    yield beside
    beside.close()


def client(gateway: GatewayBeside, key: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=gateway.base_url, headers=headers, timeout=30)


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "demo-llm", "messages": [{"role": "user", "content": text}], "max_tokens": 4, **more}


def live(gateway: GatewayBeside) -> dict[str, Any]:
    shown: dict[str, Any] = httpx.get(f"http://127.0.0.1:{gateway.ports.service_admin}/api/v1/live").json()
    return shown


async def test_arms_are_shown_with_what_their_users_saw(gateway: GatewayBeside, stack_key: str) -> None:
    seen: Counter[tuple[str, bool]] = Counter()
    async with client(gateway, stack_key) as http:
        for number in range(30):
            body = chat(FAILS if number % 5 == 0 else "Hello!", user=f"user-{number}")
            answer = await http.post("/chat/completions", json=body, headers={"x-part": "yes"})
            seen[answer.headers["x-extproc-arm"], answer.status_code == 200] += 1
    expected = {}
    for arm in ("current", "next"):
        good, bad = (seen[f"llm-v2/{arm}", whether] for whether in (True, False))
        expected[arm] = (good + bad, round(good / (good + bad), 4), *wilson(good, good + bad))
    assert sum(requests for requests, *_ in expected.values()) == 30
    assert 0 < seen["llm-v2/current", False] + seen["llm-v2/next", False] < 30

    def shown() -> dict[str, tuple[float, ...]]:
        arms = [one for one in live(gateway)["arms"] if one["experiment"] == "llm-v2"]
        return {one["arm"]: (one["requests"], one["completed"], one["low"], one["high"]) for one in arms}

    assert wait_until(lambda: shown() == expected, 20.0), (shown(), expected)
    assert all(one["first_token_p50_s"] > 0 for one in live(gateway)["arms"])


async def test_who_waits_for_a_pool_is_seen(gateway: GatewayBeside, stack_key: str) -> None:
    """One is at work until it is seen that another one waits for it."""

    def line() -> tuple[int, int, int]:
        queues = [one for one in live(gateway)["queues"] if (one["pool"], one["priority"]) == ("demo", "P0")]
        (only,) = queues or [{"requests": 0, "waiting": 0, "waited": 0}]
        return only["requests"], only["waiting"], only["waited"]

    _, _, waited = await asyncio.to_thread(line)
    async with client(gateway, stack_key) as http:
        first = asyncio.create_task(http.post("/chat/completions", json=chat(ENDLESS)))
        assert await asyncio.to_thread(wait_until, lambda: line()[:2] == (1, 0), 20.0), line()
        second = asyncio.create_task(http.post("/chat/completions", json=chat("And I?")))
        assert await asyncio.to_thread(wait_until, lambda: line()[:2] == (1, 1), 20.0), line()
        first.cancel()
        assert (await second).status_code == 200
    assert await asyncio.to_thread(wait_until, lambda: line() == (0, 0, waited + 1), 20.0), line()
    (wait,) = [one for one in live(gateway)["waits"] if one["priority"] == "P0"]
    assert 0 < wait["p50_s"] <= wait["p95_s"]
    assert wait["position_p95"] > 0


async def test_both_are_on_the_page(gateway: GatewayBeside, tmp_path: pathlib.Path) -> None:
    async with browsing(tmp_path) as page:
        await page.show(1440, 900)
        await page.open(f"http://localhost:{gateway.ports.service_admin}/")
        await page.until("document.querySelectorAll('#arms tbody tr').length === 2")
        await page.until("document.querySelectorAll('#queues tbody tr').length >= 4")
        rows = await page.value("[...document.querySelectorAll('#arms tbody tr')].map((row) => row.innerText)")
        assert [row.split("\t")[:2] for row in rows] == [["llm-v2", "current"], ["llm-v2", "next"]]
        assert all(" to " in row for row in rows)
        assert "demo" in await page.value("document.querySelector('#queues tbody').innerText")
        assert page.complaints == []
