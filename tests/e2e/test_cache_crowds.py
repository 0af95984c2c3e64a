"""Many who ask for the same at the same time, and leaders that don't come back: real Envoy, several workers, Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.helpers.cached import POLICIES, Cached, cached, choice, chunk, whole
from tests.helpers.processes import wait_until
from tests.helpers.scripted_upstream import Call, answers

WAIT_S = 6
DONE = b"data: [DONE]\n\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cached]:
    policies = POLICIES + f"  wait_s: {WAIT_S}\n"
    with cached(tmp_path_factory.mktemp("cached") / "gateway", policies, workers=2) as gateway:
        yield gateway


class Gate:
    """An upstream that answers when it is told to; before that, a stream has its first piece."""

    def __init__(self, text: str = "late") -> None:
        self.opened = threading.Event()
        self.text = text

    def __call__(self, call: Call) -> None:
        if b'"stream":true' in call.seen.body:
            call.start(200, "text/event-stream")
            call.chunk(chunk({"role": "assistant", "content": "first "}))
            while not self.opened.wait(0.02):
                if call.is_left(0.0):
                    call.owner.left += 1
                    return
            call.chunk(chunk({"content": self.text}, "stop"))
            call.chunk(DONE)
            call.chunk(b"")
        else:
            self.opened.wait(30)
            call.answer(200, whole(choice(self.text)))


def body(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "talker", "temperature": 0, "messages": [{"role": "user", "content": prompt}], **more}


async def post(client: httpx.AsyncClient, prompt: str, **more: Any) -> httpx.Response:
    return await client.post("/chat/completions", json=body(prompt, **more))


async def asked(gateway: Cached, calls: int) -> None:
    """Wait until the upstream has been asked so often."""
    assert await asyncio.to_thread(wait_until, lambda: gateway.calls >= calls)


async def test_a_thousand_ask_and_the_model_is_asked_once(running: Cached) -> None:
    running.upstream.script = gate = Gate()
    calls = running.calls
    async with contextlib.AsyncExitStack() as clients:  # one alone with so many connections takes half a minute
        some = [await clients.enter_async_context(running.http(("ann", "bob")[at % 2])) for at in range(50)]
        crowd = [asyncio.create_task(post(some[at % 50], "crowd", stream=at % 3 == 0)) for at in range(1000)]
        await asked(running, calls + 1)
        assert await asyncio.to_thread(wait_until, lambda: running.metric("extproc_streams_in_flight") >= 1000)
        gate.opened.set()
        said = await asyncio.gather(*crowd)
    assert running.calls == calls + 1
    assert Counter(one.status_code for one in said) == {200: 1000}
    assert Counter(one.headers["x-extproc-cache"] for one in said) == {"miss": 1, "hit": 999}
    assert all("late" in one.text for one in said)


async def test_tenants_do_not_wait_for_each_other(running: Cached) -> None:
    running.upstream.script = gate = Gate()
    calls = running.calls
    async with running.http() as ann, running.http("eve") as eve:
        both = [asyncio.create_task(post(client, "apart")) for client in (ann, eve)]
        await asked(running, calls + 2)
        gate.opened.set()
        assert [one.headers["x-extproc-cache"] for one in await asyncio.gather(*both)] == ["miss", "miss"]


async def test_the_client_of_the_leader_goes_and_another_leads(running: Cached) -> None:
    running.upstream.script = gate = Gate()
    calls = running.calls
    async with running.http() as client:
        async with client.stream("POST", "/chat/completions", json=body("left", stream=True)) as leader:
            pieces = leader.aiter_bytes()  # httpx hangs up when nobody holds it
            await anext(pieces)
            followers = [asyncio.create_task(post(client, "left")) for _ in range(20)]
            assert await asyncio.to_thread(wait_until, lambda: running.metric("extproc_streams_in_flight") >= 21)
        await asked(running, calls + 2)
        gate.opened.set()
        said = await asyncio.gather(*followers)
    assert running.calls == calls + 2
    assert Counter(one.headers["x-extproc-cache"] for one in said) == {"miss": 1, "hit": 19}


async def test_the_worker_of_the_leader_is_killed_and_another_leads(running: Cached) -> None:
    running.upstream.script = gate = Gate()
    calls = running.calls
    async with running.http() as client:
        stream = client.stream("POST", "/chat/completions", json=body("killed", stream=True))
        leader = await stream.__aenter__()
        pieces = leader.aiter_bytes()  # httpx hangs up when nobody holds it
        await anext(pieces)
        for worker in running.workers():
            os.kill(worker.pid, signal.SIGKILL)  # that of the leader is among them
        await stream.__aexit__(None, None, None)
        assert await asyncio.to_thread(wait_until, running.gateway.ready)

        async def until_served() -> httpx.Response:
            for _ in range(50):
                answer = await post(client, "killed")
                if answer.status_code != 503:
                    break
                await asyncio.sleep(0.1)
            return answer

        followers = [asyncio.create_task(until_served()) for _ in range(10)]
        await asked(running, calls + 2)
        gate.opened.set()
        said = await asyncio.gather(*followers)
    assert running.calls == calls + 2
    assert Counter(one.headers["x-extproc-cache"] for one in said) == {"miss": 1, "hit": 9}


async def test_after_a_failure_nobody_waits_for_the_next(running: Cached) -> None:
    opened = threading.Event()

    def fail(call: Call) -> None:
        opened.wait(30)
        call.answer(500, b"{}")

    running.upstream.script = fail
    calls = running.calls
    async with running.http() as client:
        crowd = [asyncio.create_task(post(client, "failing")) for _ in range(10)]
        await asked(running, calls + 1)
        assert await asyncio.to_thread(wait_until, lambda: running.metric("extproc_streams_in_flight") >= 10)
        assert running.calls == calls + 1
        running.upstream.script = answers(200, whole(choice("good")))
        opened.set()
        said = await asyncio.gather(*crowd)
    assert Counter(one.status_code for one in said) == {502: 1, 200: 9}
    assert running.calls == calls + 10


async def test_nobody_waits_for_longer_than_is_allowed(running: Cached) -> None:
    running.upstream.script = gate = Gate()
    calls = running.calls
    async with running.http() as client:
        first = asyncio.create_task(post(client, "slow"))
        await asked(running, calls + 1)
        second = asyncio.create_task(post(client, "slow"))
        await asyncio.sleep(0.5)
        assert running.calls == calls + 1
        await asked(running, calls + 2)
        gate.opened.set()
        assert [(await one).headers["x-extproc-cache"] for one in (first, second)] == ["miss", "miss"]


async def test_redis_hangs_or_is_gone_and_requests_go_on(running: Cached) -> None:
    running.upstream.script = answers(200, whole(choice("good")))
    async with running.http(timeout_s=5) as client:
        await post(client, "outage")
        running.settled()
        for lose, mend in ((running.redis.pause, running.redis.resume), (running.redis.stop, running.redis.start)):
            lose()
            try:
                for _ in range(5):
                    answer = await post(client, "outage")
                    assert answer.status_code == 200
                    assert answer.headers["x-extproc-cache"] == "bypass"
                    assert "cache" in answer.headers["x-extproc-degraded"]
            finally:
                mend()

            async def is_back() -> bool:
                return (await post(client, "outage")).headers["x-extproc-cache"] in ("hit", "miss")

            for _ in range(50):
                if await is_back():
                    break
                await asyncio.sleep(0.1)
            else:
                pytest.fail("the cache did not come back")
