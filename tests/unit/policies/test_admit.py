"""Admission as a policy: which class and what size a request has, what its refusal says, what a shadow leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pydantic
import pytest

from extproc import gateway_file
from extproc.admission import Line, Use
from extproc.clock import Clock
from extproc.config.policy import PolicyMode
from extproc.errors import ConfigError
from extproc.exchange.messages import ImmediateReply, RequestBody, RequestHeaders, ResponseBody, ResponseHeaders
from extproc.policies.admit_settings import Settings
from extproc.policies.limit_settings import Settings as LimitSettings
from extproc.stores.admissions import SharedAdmissions
from tests.helpers.journeys import KEY, Inside

ANSWER = orjson.dumps(
    {
        "id": "u", "object": "chat.completion", "created": 1, "model": "up",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5},
    }
)  # fmt: skip


class Door:
    """A worker without a Redis, whose share is all there is, and the lines it has."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self._shared = SharedAdmissions("redis://127.0.0.1:1", 0.25, Clock(), lambda _: None, lambda *_: None)
        chosen = {"admit": Settings.model_validate(settings), "limit": LimitSettings(mode=PolicyMode.OFF)}
        self.inside = Inside(directory, chosen, admissions=self._shared)
        self._count = 0

    @property
    def use(self) -> Use:
        return self._shared.local_use("openai")

    def ask(self, *, priority: str = "", answered: bool = True) -> asyncio.Task[list[Any]]:
        """One chat of four prompt tokens and some, and of ten at most to come; the upstream answers, or never does."""
        self._count += 1
        head = {":method": "POST", ":path": "/v1/chat/completions", "authorization": f"Bearer {KEY}"}
        head |= {"x-request-id": f"x-{self._count}", "x-extproc-priority": priority}
        body = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}
        events: list[Any] = [RequestHeaders(head), RequestBody(orjson.dumps(body), last=True)]
        if answered:
            events += [ResponseHeaders({":status": "200", "content-type": "application/json"})]
            events += [ResponseBody(ANSWER, last=True)]
        return asyncio.create_task(self.inside.exchange(events, finish=answered))

    def counted(self, outcome: str) -> float:
        labels = {"pool": "openai", "outcome": outcome}
        return sum(self.inside.metric("extproc_admissions_total", priority=f"P{level}", **labels) for level in range(4))

    async def close(self) -> None:
        await self._shared.close()


Opened = Callable[..., Door]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    doors: list[Door] = []

    def start(**settings: Any) -> Door:
        doors.append(Door(tmp_path, **settings))
        return doors[-1]

    yield start
    for door in doors:
        await door.close()


async def test_a_request_is_as_large_as_its_prompt_and_its_cap(opened: Opened) -> None:
    door = opened(pools={"openai": {"tokens": 1000}})
    await door.ask(answered=False)
    (tokens,) = [amount for amount in door.use.tokens if amount]
    assert 10 + 1 < tokens < 10 + 20  # the template's own tokens, too
    assert door.use.requests == (0, 1, 0, 0)  # its key is a pro's
    await door.ask(priority="P3")
    await door.inside.settle()
    assert door.use.requests == (0, 1, 0, 0)
    assert door.counted("at_once") == 2


async def test_a_refusal_says_when_to_come_back(opened: Opened) -> None:
    door = opened(pools={"openai": {"requests": 1, "queue_length": 0}}, classes={"P3": {"wait_s": 7.2}})
    await door.ask(answered=False)
    (reply,) = await door.ask(priority="p3")
    assert isinstance(reply, ImmediateReply)
    assert reply.status == 503
    assert orjson.loads(reply.body)["error"]["code"] == "overloaded"
    assert dict(reply.headers)["retry-after"] == "8"
    assert dict(reply.headers)["x-extproc-degraded"] == "admit"
    assert door.counted("full") == 1
    event = door.inside.usage.events[-1]
    assert (event["reason"], event["priority"], event["queued_ms"]) == ("queue_full", "P3", 0)


async def test_who_waits_in_vain_is_told_and_holds_nothing(opened: Opened) -> None:
    door = opened(pools={"openai": {"requests": 1}}, classes={"P1": {"wait_s": 0.05}})
    await door.ask(answered=False)
    (reply,) = await door.ask()
    assert reply.status == 503
    assert door.counted("too_long") == 1
    event = door.inside.usage.events[-1]
    assert (event["reason"], event["queue_position"]) == ("queue_too_long", 1)
    assert event["queued_ms"] >= 50 > event["overhead_ms"]
    assert (door.use.requests, door.use.waiting) == ((0, 1, 0, 0), (0, 0, 0, 0))


async def test_a_shadow_neither_waits_nor_refuses(opened: Opened) -> None:
    door = opened(mode=PolicyMode.SHADOW, pools={"openai": {"requests": 1, "queue_length": 1}})
    await door.ask(answered=False)
    for _ in range(3):
        assert not any(isinstance(reply, ImmediateReply) for reply in await door.ask(answered=False))
    assert (door.counted("at_once"), door.counted("full")) == (1, 2)
    assert door.use.waiting == (0, 1, 0, 0)


async def test_a_pool_without_a_line(opened: Opened) -> None:
    door = opened(pools={"triton": {"requests": 1}})
    await door.ask(answered=False)
    await door.ask(answered=False)
    assert door.use == Use((0,) * 4, (0,) * 4, (0,) * 4)
    await door.ask()
    assert "priority" not in door.inside.usage.events[-1]


def test_what_a_line_holds() -> None:
    settings = Settings.model_validate({"pools": {"a": {"requests": 10, "tokens": 999}, "b": {"requests": 1}}})
    assert settings.line("a") == Line("a", (10, 10, 9, 8), (999, 999, 899, 799), (64, 16, 4, 1), 256, 10_000)
    assert settings.line("b") == Line("b", (1, 1, 1, 1), (0, 0, 0, 0), (64, 16, 4, 1), 256, 10_000)
    assert settings.line("c") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"pools": {"a": {}}},
        {"pools": {"a": {"queue_length": 5}}},
        {"classes": {"P2": {"share": 0.5}}},  # of P3's 0.8
        {"classes": {"P0": {"share": 0.5}}},
        {"tiers": {"free": "P4"}},
    ],
)
def test_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Settings.model_validate(wrong)


GATEWAY = """
gateway: {stream_idle_timeout_s: 20}
keys: {hash_secret: a-secret-of-enough-letters}
models: {m: {pool: here, operations: [chat], context_window: 100}}
pools: {here: {dialect: openai, model: m, idle_timeout_s: 10, clusters: {one: {endpoints: ["127.0.0.1:8000"]}}}}
policies:
  admit:
    pools: {there: {requests: 1}}
    classes: {P2: {wait_s: 5}, P3: {wait_s: 20}}
"""


def test_a_line_before_no_pool_and_a_wait_that_envoy_ends(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(GATEWAY)
    with pytest.raises(ConfigError) as caught:
        gateway_file.load(path, {})
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["policies.admit.pools.there", "policies.admit.classes.P3.wait_s"]
