"""Limits that go down while a real Triton has a queue: the lowest tier first, told to clients, restored afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from extproc.config.tier import Tier
from extproc.stack.stack import TRITON_A, Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.layers import BESIDE, layered
from tests.helpers.limited import Answer
from tests.helpers.processes import wait_until
from tests.helpers.usage import Scrape, log_lines

CONFIG = """
polling: {interval_s: 0.2, stale_after_s: 1}
models:
  demo-llm:
    pool: demo
    operations: [chat]
    tokenizer: {type: tiktoken, encoding: cl100k_base}
    chat_template: chatml
    context_window: 8192
    max_output_tokens: 1024
pools:
  demo:
    dialect: triton-generate
    model: demo_llm
    clusters:
      a:
        endpoints: ["127.0.0.1:${EXTPROC_TRITON_A_HTTP_PORT}"]
        metrics: ["127.0.0.1:${EXTPROC_TRITON_A_METRICS_PORT}"]
    full_queue: 8
policies:
  limit:
    adaptive:
      dwell_s: 1
      levels: [{enter: 0.5, leave: 0.1, shares: {free: 0.2}}]
"""
RUNNING = 32  # as many sequences demo_llm runs at a time (its config.pbtxt)
QUEUED = 16
pytestmark = pytest.mark.stack


@pytest.fixture
def gateway(stack: Stack, tmp_path: pathlib.Path) -> Iterator[GatewayBeside]:
    beside = GatewayBeside(stack, tmp_path, layered(BESIDE, CONFIG), workers=2)
    yield beside
    beside.close()


@pytest.fixture
def keys(stack: Stack) -> dict[Tier, str]:
    return {tier: stack.create_key(tier, tier=tier) for tier in (Tier.FREE, Tier.PRO, Tier.ENTERPRISE)}


async def ask(
    client: httpx.AsyncClient, key: str, prompt: str = "[[demo:tokens=2]]", *, stream: bool = False
) -> Answer:
    body = {"model": "demo-llm", "messages": [{"role": "user", "content": prompt}], "stream": stream}
    answer = await client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
    return Answer(answer.status_code, answer.headers, answer.text, 0.0)


@contextlib.asynccontextmanager
async def load(client: httpx.AsyncClient, key: str) -> AsyncIterator[None]:
    """Meanwhile the model is full, and has a queue behind it; then its clients leave."""
    long = [f"[[demo:tokens=300]][[demo:tpot_ms=100]] {number}" for number in range(RUNNING + QUEUED)]
    asked = [asyncio.create_task(ask(client, key, prompt, stream=True)) for prompt in long]
    try:
        yield
    finally:
        for one in asked:
            one.cancel()
        ended = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(one) for one in ended} == {asyncio.CancelledError}


def metrics(gateway: GatewayBeside) -> Scrape:
    return Scrape(gateway.ports.service_admin)


async def reaches(gateway: GatewayBeside, level: int) -> None:
    """Wait until this level holds, and every worker has seen it."""
    reached = await asyncio.to_thread(
        wait_until, lambda: metrics(gateway).value("extproc_pool_level", pool="demo") == level, 20.0
    )
    assert reached
    await asyncio.sleep(0.5)


def told(answer: Answer) -> tuple[int, str, str]:
    headers = answer.headers
    return answer.status, headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]


async def test_the_lowest_tier_is_limited_while_there_is_a_queue(gateway: GatewayBeside, keys: dict[Tier, str]) -> None:
    free, pro, crowd = keys.values()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{gateway.ports.gateway}", timeout=60, limits=httpx.Limits(max_connections=None)
    ) as client:
        assert told(await ask(client, free)) == (200, "10", "9")
        assert told(await ask(client, free)) == (200, "10", "8")
        async with load(client, crowd):
            await reaches(gateway, 1)
            seen = metrics(gateway)
            assert seen.value("extproc_pool_pressure", pool="demo") == 1.0
            factors = {tier: seen.value("extproc_limit_factor", pool="demo", tier=tier) for tier in ("free", "pro")}
            assert factors == {"free": 0.2, "pro": 1.0}
            for _ in range(4):  # by whichever worker
                refused = await ask(client, free)
                assert told(refused) == (429, "2", "0")
                assert refused.code == "rate_limit_exceeded"
                assert "usually 10" in refused.text
                assert 1 <= int(refused.headers["retry-after"]) <= 60
            passing = asyncio.create_task(ask(client, pro))
            await asyncio.sleep(0.5)
            assert not passing.done()  # it waits in the model's queue
        assert told(await passing) == (200, "500", "499")
        await reaches(gateway, 0)
        after = await ask(client, free)
        assert (after.status, after.headers["x-ratelimit-limit-requests"]) == (200, "10")
    changes = [line for line in log_lines(gateway.service.log) if "another level" in line.get("message", "")]
    assert [(line["was"], line["now"]) for line in changes] == [(0, 1), (1, 0)]


async def test_a_triton_that_says_nothing_changes_nothing(
    stack: Stack, gateway: GatewayBeside, keys: dict[Tier, str]
) -> None:
    def known() -> bool:
        return any(name == "extproc_pool_pressure" for name, _ in metrics(gateway).series)

    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{gateway.ports.gateway}", timeout=60, limits=httpx.Limits(max_connections=None)
    ) as client:
        assert await asyncio.to_thread(wait_until, known)
        async with load(client, keys[Tier.ENTERPRISE]):
            await reaches(gateway, 1)
            stack.process(TRITON_A).pause()
            try:
                assert await asyncio.to_thread(wait_until, lambda: not known())
                await asyncio.sleep(1.5)  # longer than the dwell
                assert metrics(gateway).value("extproc_pool_level", pool="demo") == 1
            finally:
                stack.process(TRITON_A).resume()
        await reaches(gateway, 0)
    lines = [line.get("message", "") for line in log_lines(gateway.service.log)]
    assert [line for line in lines if "a server's metrics" in line] == [
        "a server's metrics can't be read",
        "a server's metrics are back",
    ]
