"""Limits through real Envoy, processor and Redis: exact under concurrency, aborts, kills and outages."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.helpers.limited import Answer, Limited, ask
from tests.helpers.llm import PROMPT_TOKENS
from tests.helpers.processes import wait_until
from tests.helpers.usage import Scrape, in_flight, log_lines

KEYS = {
    "crowd": "enterprise", "small": "enterprise", "streams": "enterprise", "allowed": "free", "slots": "enterprise",
    "shadowed": "enterprise", "attempts": "enterprise", "spender": "enterprise", "storm": "enterprise",
    "soft": "enterprise", "counted": "enterprise",
    "refused": "enterprise",
}  # fmt: skip
CROWD = 50
HOUR = "window_s: 3600, algorithm: sliding_window"
POLICY = f"""
reservation_ttl_s: 5
keys:
  slots: {{concurrent_requests: 2}}
  attempts: {{requests_per_minute: 5}}
  counted: {{requests_per_minute: 60, tokens_per_minute: 60000}}
  refused: {{requests_per_minute: 60, tokens_per_minute: 60000, algorithm: sliding_window}}
limits:
  crowd: {{scope: key, measure: requests, amount: {CROWD}, {HOUR}, keys: [crowd]}}
  small: {{scope: key, measure: tokens, amount: 200, window_s: 4, keys: [small]}}
  streams: {{scope: key_model, measure: output_tokens, amount: 150, {HOUR}, keys: [streams]}}
  shadowed: {{scope: key, measure: requests, amount: 2, {HOUR}, mode: shadow, keys: [shadowed]}}
  storm: {{scope: key, measure: tokens, amount: 100000000, {HOUR}, keys: [storm]}}
  storm-in: {{scope: team, measure: input_tokens, amount: 100000000, {HOUR}, keys: [storm]}}
  storm-out: {{scope: model, measure: output_tokens, amount: 100000000, {HOUR}, keys: [storm]}}
  storm-slots: {{scope: global, measure: concurrent, amount: 1000, keys: [storm]}}
budgets:
  day: {{scope: key, per: day, amount: "0.0055", keys: [spender]}}
  soft: {{scope: key, per: total, amount: "0.01", soft: 0.3, keys: [soft]}}
  storm: {{scope: key, per: total, amount: "1000", keys: [storm]}}
"""
CHARGED = ("COMPLETED", "CANCELLED")
pytestmark = pytest.mark.stack


@pytest.fixture(scope="module", params=[1, 4], ids=["one-worker", "four-workers"])
def limited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    running = Limited(tmp_path_factory.mktemp("limited"), KEYS, POLICY, workers=request.param)
    yield running
    running.close()


async def crowd(limited: Limited, key: str, size: int, prompt: str = "Hi") -> list[Answer]:
    async with limited.client() as client:
        return list(await asyncio.gather(*(ask(client, key, prompt) for _ in range(size))))


async def settled(limited: Limited, key: str, name: str, expected: int, timeout_s: float = 20.0) -> None:
    """Wait until so much of a limit is used: finalizers run when the client has its answer already."""
    until_s = time.monotonic() + timeout_s
    used = await limited.used(key, name)
    while used != expected and time.monotonic() < until_s:
        await asyncio.sleep(0.1)
        used = await limited.used(key, name)
    assert used == expected


async def test_a_crowd_gets_exactly_what_the_limit_holds(limited: Limited) -> None:
    answers = await crowd(limited, "crowd", 200)
    assert Counter(answer.status for answer in answers) == {200: CROWD, 429: 200 - CROWD}
    refused = [answer for answer in answers if answer.status == 429]
    assert {answer.code for answer in refused} == {"rate_limit_exceeded"}
    for answer in refused:
        assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert answer.headers["x-ratelimit-limit-requests"] == str(CROWD)
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert await limited.used("crowd", "crowd") == CROWD


async def test_a_crowd_never_reserves_more_tokens_than_there_are(limited: Limited) -> None:
    answers = await crowd(limited, "small", 60, "[[tokens=20]][[gap_ms=20]]")
    admitted = sum(answer.status == 200 for answer in answers)
    assert 1 <= admitted <= 8  # each reserves some 20 tokens of prompt at least, and 90 of answer
    assert {answer.status for answer in answers} == {200, 429}


async def test_waiting_as_told_succeeds(limited: Limited) -> None:
    async with limited.client() as client:
        for _ in range(20):
            answer = await ask(client, "small", "[[tokens=60]]")
            if answer.status == 429:
                break
        assert answer.status == 429
        assert answer.headers["x-ratelimit-limit-tokens"] == "200"
        await asyncio.sleep(int(answer.headers["retry-after"]))
        assert (await ask(client, "small", "[[tokens=60]]")).status == 200


async def test_what_can_never_fit_is_a_400(limited: Limited) -> None:
    async with limited.client() as client:
        answer = await ask(client, "small", "word " * 300)
    assert (answer.status, answer.code) == (400, "request_exceeds_limit")
    assert "200 tokens" in answer.text


async def test_headers_on_answers_and_streams(limited: Limited) -> None:
    async with limited.client() as client:
        for number, stream in enumerate((False, True), 1):
            answer = await ask(client, "counted", stream=stream)
            assert answer.status == 200
            assert answer.headers["x-ratelimit-limit-requests"] == "60"
            assert answer.headers["x-ratelimit-remaining-requests"] == str(60 - number)
            assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
            assert answer.headers["x-ratelimit-limit-tokens"] == "60000"
            assert 50_000 < int(answer.headers["x-ratelimit-remaining-tokens"]) < 60_000
            assert "x-extproc-degraded" not in answer.headers


async def test_headers_on_refusals_whoever_refuses(limited: Limited) -> None:
    wrong: list[tuple[int, dict[str, Any]]] = [
        (404, {"model": "no-such-model"}),
        (400, {"temperature": "hot"}),
        (400, {"messages": []}),
        (400, {"messages": [{"role": "user", "content": "word " * 9000}]}),
    ]
    async with limited.client() as client:
        for number, (status, more) in enumerate(wrong, 1):
            answer = await ask(client, "refused", **more)
            assert answer.status == status
            assert answer.headers["x-ratelimit-limit-requests"] == "60"
            assert answer.headers["x-ratelimit-remaining-requests"] == str(60 - number)
            assert answer.headers["x-ratelimit-remaining-tokens"] == "60000"
            assert "x-ratelimit-reset-tokens" in answer.headers
        assert await asyncio.to_thread(wait_until, lambda: in_flight(limited.gateway.ports.service_admin) == 0)
        await settled(limited, "refused", "tier:requests_per_minute", len(wrong))  # each once
        unknown = await ask(client, "nobody")
    assert unknown.status == 401
    assert not [name for name in unknown.headers if name.startswith("x-ratelimit")]


async def test_a_stream_that_outruns_its_limit_is_ended_cleanly(limited: Limited) -> None:
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    async with limited.client() as client:
        answer = await ask(client, "streams", "[[tokens=900]][[gap_ms=3]]", **options)
    assert answer.status == 200
    assert answer.text.endswith("data: [DONE]\n\n")
    *_, last, usage = answer.events
    assert last["choices"][0]["finish_reason"] == "length"
    tokens = usage["usage"]["completion_tokens"]
    assert 75 <= tokens <= 170
    request_id = answer.headers["x-request-id"]

    def event() -> dict[str, object]:
        return next((e for e in limited.events() if e["id"] == request_id), {})

    assert wait_until(lambda: bool(event()))
    assert (event()["termination"], event()["reason"]) == ("COMPLETED", "limit_reached")
    assert event()["completion_tokens"] == tokens
    await settled(limited, "streams", "streams", min(150, tokens))


async def test_slots(limited: Limited) -> None:
    async with limited.client() as client:
        slow = [asyncio.create_task(ask(client, "slots", "[[tokens=10]][[gap_ms=100]]")) for _ in range(2)]
        await settled(limited, "slots", "tier:concurrent_requests", 2)
        refused = await ask(client, "slots")
        assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
        assert {answer.status for answer in await asyncio.gather(*slow)} == {200}
        await settled(limited, "slots", "tier:concurrent_requests", 0)
        assert (await ask(client, "slots")).status == 200


async def test_a_shadow_counts_and_never_refuses(limited: Limited) -> None:
    def counted() -> float:
        return Scrape(limited.gateway.ports.service_admin).value(
            "extproc_limit_exceeded_total", limit="shadowed", mode="shadow"
        )

    async with limited.client() as client:
        answers = [await ask(client, "shadowed") for _ in range(5)]
    assert {answer.status for answer in answers} == {200}
    assert not [name for name in answers[0].headers if name.startswith("x-ratelimit")]
    assert counted() == 3


async def test_every_attempt_counts_as_a_request_and_a_refused_one_costs_nothing_else(limited: Limited) -> None:
    async with limited.client() as client:
        headers = {"authorization": "Bearer attempts"}
        for _ in range(3):
            bad = await client.post("/v1/chat/completions", content=b"not json", headers=headers)
            assert bad.status_code == 400
        await settled(limited, "attempts", "tier:requests_per_minute", 3, 2.0)
        statuses = [(await ask(client, "attempts")).status for _ in range(4)]
        assert statuses == [200, 200, 429, 429]


async def test_a_budget_ends(limited: Limited) -> None:
    async with limited.client() as client:
        answers = [await ask(client, "spender", max_tokens=10) for _ in range(8)]
    assert 1 <= sum(answer.status == 200 for answer in answers) <= 5
    refused = answers[-1]
    assert (refused.status, refused.code) == (429, "insufficient_quota")
    assert 1 <= int(refused.headers["retry-after"]) <= 120


async def test_a_budget_is_told_before_it_ends(limited: Limited) -> None:
    async with limited.client() as client:
        answers = [await ask(client, "soft", max_tokens=10) for _ in range(5)]
    told = [answer.headers.get("x-extproc-budget") for answer in answers]
    assert told[0] is None
    assert told[-1] is not None
    assert told[-1].endswith("%")
    log = limited.gateway.directory / "service.log"
    assert wait_until(lambda: any("soft threshold" in line.get("message", "") for line in log_lines(log)))


async def storm(limited: Limited, client: httpx.AsyncClient, dice: random.Random) -> None:
    prompt = f"[[tokens={dice.randint(1, 40)}]][[gap_ms={dice.randint(0, 15)}]]"
    kind = dice.choice(("whole", "stream", "abort", "fail", "die"))
    await asyncio.sleep(dice.random())
    try:
        if kind == "whole":
            await ask(client, "storm", prompt)
        elif kind == "stream":
            await ask(client, "storm", prompt, stream=True)
        elif kind == "abort":
            await ask(client, "storm", prompt + "[[gap_ms=20]]", stream=True, leave_after=dice.randint(1, 4))
        else:
            await ask(client, "storm", f"{prompt}[[{kind}]]", stream=kind == "die")
    except httpx.HTTPError:
        pass  # the worker that was killed


def worker_of(limited: Limited) -> psutil.Process:
    assert limited.gateway.service.pid is not None
    children = psutil.Process(limited.gateway.service.pid).children(recursive=True)
    return next(child for child in children if "extproc.app" in child.cmdline())


async def test_after_a_storm_what_is_charged_is_what_was_used(limited: Limited) -> None:
    dice = random.Random(3)
    async with limited.client() as client:
        tasks = [asyncio.create_task(storm(limited, client, dice)) for _ in range(150)]
        await asyncio.sleep(0.7)
        worker_of(limited).kill()
        await asyncio.gather(*tasks)
    assert wait_until(limited.gateway.ready, 30.0)
    await settled(limited, "storm", "storm-slots", 0)

    def events() -> list[dict[str, Any]]:
        mine = [event for event in limited.events() if event.get("principal") == "storm"]
        return [e for e in mine if e.get("completion_tokens") or e["termination"] in CHARGED]

    prompt, answer = (sum(event[name] for event in events()) for name in ("prompt_tokens", "completion_tokens"))
    assert prompt >= PROMPT_TOKENS
    assert answer > 0
    await settled(limited, "storm", "storm", prompt + answer)
    await settled(limited, "storm", "storm-in", prompt)
    await settled(limited, "storm", "storm-out", answer)
    await settled(limited, "storm", "budget:storm", sum(int(event["price_nano"]) for event in events()))
