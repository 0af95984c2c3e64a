"""What a hanging Redis adds to a request, on a clock that only counts waiting: the deadline at most, and once."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Coroutine
from typing import Any

import orjson
import pytest

from extproc.clock import Clock
from extproc.exchange.messages import ImmediateReply, RequestBody, RequestHeaders, ResponseBody, ResponseHeaders
from extproc.limits import Charge, Lost, Measure, bucket, gauge, key_of
from extproc.policies.limit_settings import Settings
from extproc.stores.limiter import SharedLimiter
from extproc.stores.limits import RedisLimits
from extproc.stores.scripts import LINGER_S
from tests.helpers.journeys import KEY, Inside
from tests.helpers.redis import RedisServer
from tests.helpers.still_time import StillLoop

TIMEOUT_S = 0.25
LIMITS = (bucket("tokens", Measure.TOKENS, 10**9, 60_000), gauge("slots", 10_000))
TAKEN = [Charge(key_of(limit, "k"), limit, 1) for limit in LIMITS]
ANSWER = orjson.dumps(
    {
        "id": "u", "object": "chat.completion", "created": 1, "model": "up",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5},
    }
)  # fmt: skip


class Hung:
    """A limiter that has spoken to its Redis, which hangs from now on."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.loop = StillLoop()
        self.runner = asyncio.Runner(loop_factory=lambda: self.loop)
        self.limiter = self.runner.run(self._warm())
        server.pause()
        self.loop.grace_s = 0.0  # nothing will come, so there is nothing to wait for

    async def _warm(self) -> SharedLimiter:
        limiter = SharedLimiter(RedisLimits(self.server.url, TIMEOUT_S), Clock(), lambda _: None)
        await limiter.beat()
        await limiter.reserve("open", TAKEN, 30.0, Lost.SHARE)
        return limiter

    async def waited(self, after_s: float, work: Coroutine[Any, Any, Any]) -> float:
        """How long the work waited, begun so much later."""
        await asyncio.sleep(after_s)
        began_s = self.loop.time()
        await work
        return self.loop.time() - began_s

    def close(self) -> None:
        self.server.resume()
        self.loop.grace_s = 1.0
        self.runner.run(self.limiter.close())
        self.runner.close()


@pytest.fixture
def hung(own_redis: RedisServer) -> Any:
    started = Hung(own_redis)
    yield started
    started.close()


def test_nobody_waits_longer_than_the_deadline(hung: Hung) -> None:
    """A crowd that arrives over a second: those of the first quarter share what is left of one deadline."""

    async def crowd() -> list[float]:
        arrive = (
            hung.waited(0.01 * number, hung.limiter.reserve(f"r{number}", TAKEN, 30.0, Lost.SHARE))
            for number in range(100)
        )
        return await asyncio.gather(*arrive)

    waits = hung.runner.run(crowd())
    assert waits[0] == pytest.approx(TIMEOUT_S)
    assert max(waits) <= TIMEOUT_S + 1e-9
    assert waits[:26] == pytest.approx([TIMEOUT_S - 0.01 * number for number in range(26)])
    assert set(waits[26:]) == {0.0}  # it is known to be lost


@pytest.mark.parametrize("what", ["extend", "settle", "attempt"])
def test_whatever_is_asked(hung: Hung, what: str) -> None:
    work = {
        "extend": lambda: hung.limiter.extend("open", [1, 0]),
        "settle": lambda: hung.limiter.settle("open", [1, 0]),
        "attempt": lambda: hung.limiter.attempt(TAKEN[:1], Lost.SHARE),
    }[what]
    lingers_s = LINGER_S if what == "settle" else 0.0  # nobody waits for that
    assert hung.runner.run(hung.waited(0.0, work())) == pytest.approx(TIMEOUT_S + lingers_s)
    assert hung.runner.run(hung.waited(0.0, hung.limiter.reserve("next", TAKEN, 30.0, Lost.SHARE))) == 0.0


def test_a_whole_request_waits_once(hung: Hung, tmp_path: pathlib.Path) -> None:
    """All that one request asks of the limiter, from its headers to its settlement."""
    inside = Inside(tmp_path, {"limit": Settings()}, hung.limiter)

    async def exchange(number: int) -> float:
        body = orjson.dumps({"model": "talker", "messages": [{"role": "user", "content": "Hi"}]})
        head = {":method": "POST", ":path": "/v1/chat/completions", "authorization": f"Bearer {KEY}"}
        began_s = hung.loop.time()
        replies = await inside.exchange(
            [
                RequestHeaders({**head, "x-request-id": f"x-{number}"}),
                RequestBody(body, last=True),
                ResponseHeaders({":status": "200", "content-type": "application/json"}),
                ResponseBody(ANSWER, last=True),
            ]
        )
        assert not any(isinstance(reply, ImmediateReply) for reply in replies)
        return hung.loop.time() - began_s

    waits = [hung.runner.run(exchange(number)) for number in range(5)]
    assert waits == pytest.approx([TIMEOUT_S, 0, 0, 0, 0])
