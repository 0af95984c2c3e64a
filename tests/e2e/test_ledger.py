"""The ledger through the whole stack: its sum is that of the usage lines, whatever happened to workers and Redis."""

import asyncio
import concurrent.futures
import contextlib
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import httpx
import psutil
import pytest

from extproc.money import decimal_from_nano
from extproc.stack.stack import Stack
from extproc.stores.keys import KeyHasher
from extproc.stores.ledger import Ledger, Retention
from tests.helpers.beside import GatewayBeside
from tests.helpers.processes import wait_until
from tests.helpers.redis import RedisServer
from tests.helpers.stack import CONFIG
from tests.helpers.usage import Scrape, log_lines, usage_events

KEY = "sk-xp-of-a-test"
QUICK = "[[demo:ttft_ms=0]][[demo:tpot_ms=0]][[demo:tokens=12]]"
SLOW = "[[demo:ttft_ms=0]][[demo:tpot_ms=50]][[demo:tokens=200]]"
COMPARED = (
    "principal", "team", "tier", "model", "operation", "pool", "termination", "reason", "currency", "prompt_tokens",
    "completion_tokens", "cached_tokens", "price_nano", "status", "time", "duration_ms", "ttft_ms",
)  # fmt: skip
ARRIVE_S = 20.0


def configuration(key_hash: str) -> str:
    """The documented configuration with a key that needs no Redis, and a price of the test's own."""
    text = CONFIG.read_text()
    static = f'  static: {{t: {{hash: "{key_hash}", team: tests, tier: enterprise}}}}\n'
    mark = "key-secret\n"
    assert text.count(mark) == 1
    text = text.replace(mark, mark + static)
    price = '    price: {input_per_mtok: "2.50", output_per_mtok: "10", per_request: "0.0001"}\n'
    text, found = re.subn(r"    price:.*\n(      .*\n)+", price, text)
    assert found == 1
    return text


@pytest.fixture
def ledger_lines() -> str:
    """Of gateway.yaml; empty for the documented ones."""
    return ""


@pytest.fixture
def gateway(stack: Stack, own_redis: RedisServer, tmp_path: pathlib.Path, ledger_lines: str) -> Iterator[GatewayBeside]:
    directory = tmp_path / "g"
    directory.mkdir()
    text = configuration(KeyHasher(stack.config.keys.secret).hash(KEY))
    if ledger_lines:
        text, found = re.subn(r"(?m)^ledger:.*\n(  .*\n)+", ledger_lines, text)
        assert found == 1
    with contextlib.closing(
        GatewayBeside(stack, directory, text, workers=2, env={"REDIS_URL": own_redis.url})
    ) as beside:
        yield beside


@pytest.fixture
def http(gateway: GatewayBeside) -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_connections=50)
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=gateway.base_url, headers=headers, timeout=60.0, limits=limits) as client:
        yield client


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "demo-llm", "messages": [{"role": "user", "content": text}], **more}


def leave(http: httpx.Client) -> None:
    with http.stream("POST", "/chat/completions", json=chat(SLOW, stream=True)) as answer:
        next(answer.iter_text())


def mixed(http: httpx.Client) -> None:
    """What clients do: answers, streams, refusals, failures, and leaving early."""
    http.post("/chat/completions", json=chat(QUICK))
    http.post("/chat/completions", json=chat(QUICK, stream=True))
    http.post("/completions", json={"model": "demo-llm", "prompt": QUICK})
    http.post("/embeddings", json={"model": "minilm", "input": "some words"})
    http.post("/chat/completions", json=chat(QUICK, n=2))
    http.post("/chat/completions", json={**chat(QUICK), "model": "none"})
    http.post("/chat/completions", json=chat(QUICK), headers={"authorization": "Bearer wrong"})
    http.post("/chat/completions", json=chat(f"{QUICK}[[demo:error-before]]"))
    http.post("/chat/completions", json=chat(f"{QUICK}[[demo:error-after=3]]", stream=True))
    http.get("/models")
    leave(http)


def streams_broken_off(http: httpx.Client, gateway: GatewayBeside) -> None:
    """Kill both workers while streams are open in them."""

    def stream() -> None:
        with (
            contextlib.suppress(httpx.HTTPError),
            http.stream("POST", "/chat/completions", json=chat(SLOW, stream=True)) as answer,
        ):
            answer.read()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = [pool.submit(stream) for _ in range(8)]
        assert wait_until(lambda: Scrape(gateway.ports.service_admin).value("extproc_streams_in_flight") == 8)
        for worker in workers(gateway):
            worker.kill()
        concurrent.futures.wait(running)


def workers(gateway: GatewayBeside) -> list[psutil.Process]:
    found = [process for process in psutil.process_iter() if str(gateway.config_path) in " ".join(words(process))]
    return [process for process in found if "extproc.app" in words(process)]


def words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return []


def recorded(url: str) -> list[Mapping[str, str]]:
    async def read() -> list[Mapping[str, str]]:
        ledger = Ledger(url, 5.0, Retention(35, 1_000_000))
        try:
            return [record async for page in ledger.pages() for record in page]
        finally:
            await ledger.close()

    return asyncio.run(read())


def as_text(event: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple("" if event.get(name) is None else str(event[name]) for name in COMPARED)


def usage(gateway: GatewayBeside, *arguments: str) -> str:
    command = [sys.executable, "-m", "extproc", "usage", "--config", str(gateway.config_path), *arguments]
    result = subprocess.run(
        command, env=os.environ | gateway.environment, capture_output=True, text=True, timeout=60, check=True
    )
    return result.stdout


def test_the_ledger_is_the_sum_of_the_usage_lines(
    http: httpx.Client, gateway: GatewayBeside, own_redis: RedisServer
) -> None:
    log = gateway.directory / "service.log"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(mixed, [http] * 8))
    own_redis.stop()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(mixed, [http] * 4))
    assert wait_until(lambda: Scrape(gateway.ports.service_admin).value("extproc_ledger_degraded") == 1)
    streams_broken_off(http, gateway)
    own_redis.start()
    # Envoy takes the new workers back in its own time; what it refuses until then no worker sees.
    assert wait_until(lambda: http.get("/models").status_code == 200, 30.0)
    mixed(http)
    least = 13 * 11 + 8 + 1
    assert wait_until(lambda: len(usage_events(log)) >= least), len(usage_events(log))
    assert wait_until(lambda: Scrape(gateway.ports.service_admin).value("extproc_streams_in_flight") == 0)
    assert wait_until(lambda: len(recorded(own_redis.url)) == len(usage_events(log)), ARRIVE_S)
    events, records = usage_events(log), recorded(own_redis.url)
    assert {event["id"]: as_text(event) for event in events} == {record["id"]: as_text(record) for record in records}
    assert len({event["id"] for event in events}) == len(records)
    assert {event["termination"] for event in events} == {
        "COMPLETED", "REJECTED", "CANCELLED", "UPSTREAM_ERROR", "INTERNAL_ERROR",
    }  # fmt: skip
    assert sum(event["reason"] == "worker_died" for event in events) == 8
    scrape = Scrape(gateway.ports.service_admin)
    assert scrape.value("extproc_ledger_records_total", outcome="recorded") == len(events)
    assert scrape.value("extproc_ledger_waiting_bytes") == 0
    assert scrape.value("extproc_ledger_lost_total") == 0
    by = ("--by", "team,model,operation,pool,termination", "--format", "csv")
    assert usage(gateway, *by) == usage(gateway, *by, "--from-log", str(log))
    said = [line["message"] for line in log_lines(log) if "ledger" in line["message"]]
    assert said == ["the ledger can't be reached; usage waits on disk", "the ledger is back"]


def test_an_answer_costs_what_its_tokens_cost(
    http: httpx.Client, gateway: GatewayBeside, own_redis: RedisServer
) -> None:
    answers = [
        http.post("/chat/completions", json=chat(QUICK)).json()["usage"],
        http.post("/chat/completions", json=chat(f"{QUICK} and some more words")).json()["usage"],
    ]
    http.post("/chat/completions", json=chat(QUICK, n=2))
    cost = sum(
        Decimal("2.50") * used["prompt_tokens"] / 10**6
        + Decimal(10) * used["completion_tokens"] / 10**6
        + Decimal("0.0001")
        for used in answers
    )
    assert wait_until(lambda: len(recorded(own_redis.url)) == 3, ARRIVE_S)
    charged = sorted(int(record["price_nano"]) for record in recorded(own_redis.url))
    assert charged[0] == 0
    assert decimal_from_nano(sum(charged)) == cost
    assert str(cost.normalize()) in usage(gateway, "--by", "principal")


def test_what_waits_when_the_service_ends_is_carried_by_the_next(
    http: httpx.Client, gateway: GatewayBeside, own_redis: RedisServer
) -> None:
    own_redis.stop()
    mixed(http)
    log = gateway.directory / "service.log"
    assert wait_until(lambda: len(usage_events(log)) == 11)
    ids = {event["id"] for event in usage_events(log)}
    gateway.service.stop(20.0)
    assert any(line["message"] == "usage has not reached the ledger" for line in log_lines(log))
    own_redis.start()
    gateway.service.start()
    assert wait_until(gateway.ready, 30.0)
    assert wait_until(lambda: {record["id"] for record in recorded(own_redis.url)} == ids, ARRIVE_S)


@pytest.mark.parametrize("ledger_lines", ["ledger: {enabled: false}\n"])
def test_without_a_ledger_there_are_the_lines_alone(
    http: httpx.Client, gateway: GatewayBeside, own_redis: RedisServer
) -> None:
    http.post("/chat/completions", json=chat(QUICK))
    assert wait_until(lambda: len(usage_events(gateway.directory / "service.log")) == 1)
    gateway.service.stop(20.0)
    assert recorded(own_redis.url) == []
    assert list(gateway.directory.rglob("*.jsonl")) == []


@pytest.mark.parametrize("ledger_lines", ["ledger: {max_records: 1000}\n"])
def test_a_spool_without_a_place_of_its_own_goes_when_all_is_carried(
    http: httpx.Client, gateway: GatewayBeside, own_redis: RedisServer
) -> None:
    http.post("/chat/completions", json=chat(QUICK))
    assert wait_until(lambda: len(usage_events(gateway.directory / "service.log")) == 1)
    gateway.service.stop(20.0)  # at once: what is spooled is carried before the end
    assert len(recorded(own_redis.url)) == 1
    assert list((gateway.directory / "tmp").iterdir()) == []
