"""Lua scripts run in Redis, those of many coroutines together in one round trip.

What is asked for while one pipeline is under way goes with the next, and what nobody is kept waiting by goes with
what somebody is, if that comes soon. Owns the deadline: it starts when a pipeline is
sent, and a worker that was too busy to read an answer in time does not take it for a lost Redis. Must not know: what
the scripts do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from extproc.stores.connection import bounded
from extproc.stores.errors import StoreRefused, StoreTimeout, StoreUnavailable

PATIENCE = 4
"""So many times the deadline, in seconds, is the connection's own: it must not be the first to lose patience."""

LINGER_S = 0.002
"""So long at most a call that is in no hurry waits for company. Each pipeline costs its sender and Redis a wake-up."""

_MOST_TOGETHER = 64
_LAG_S = 0.02


class Haste(Enum):
    """`NOW`: somebody waits. `SOON`: it may linger."""

    NOW = 0
    SOON = 1


class Script:
    """A script by the hash that Redis knows it by."""

    def __init__(self, client: redis.asyncio.Redis, text: str) -> None:
        self.text = text
        self.sha: str = client.register_script(text).sha


@dataclass(slots=True)
class _Call:
    script: Script
    keys: Sequence[str]
    arguments: Sequence[Any]
    answer: asyncio.Future[Any]


class ScriptRunner:
    """One pipeline at a time over `client`, which has `PATIENCE` times the deadline."""

    def __init__(self, client: redis.asyncio.Redis, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._waiting: deque[_Call] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any], haste: Haste = Haste.NOW) -> Any:
        """The script's answer. Raises StoreUnavailable or StoreTimeout. Calls are run in the order of their asking."""
        loop = asyncio.get_running_loop()
        call = _Call(script, keys, arguments, loop.create_future())
        self._waiting.append(call)
        if haste is Haste.NOW:
            self._begin()
        elif self._lingering is None:
            self._lingering = loop.call_later(LINGER_S, self._begin)
        return await call.answer

    def _begin(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._sending is None and self._waiting:
            self._sending = asyncio.get_running_loop().create_task(self._send_all())

    async def close(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        if self._sending is not None:
            self._sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sending

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                calls = [self._waiting.popleft() for _ in range(min(_MOST_TOGETHER, len(self._waiting)))]
                await self._send(calls)
        finally:
            self._sending = None

    async def _send(self, calls: Sequence[_Call]) -> None:
        try:
            answers = await self._in_time(calls)
        except StoreUnavailable as error:
            # Who waits behind a lost pipeline has waited long enough.
            for call in (*calls, *self._waiting):
                if not call.answer.done():
                    call.answer.set_exception(error)
            self._waiting.clear()
            return
        for call, answer in zip(calls, answers, strict=True):
            if call.answer.done():  # whoever asked is gone
                continue
            if isinstance(answer, Exception):
                call.answer.set_exception(StoreRefused(f"{type(answer).__name__}: {answer}"))
            else:
                call.answer.set_result(answer)

    async def _in_time(self, calls: Sequence[_Call]) -> list[Any]:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        work = loop.create_task(self._execute(calls))
        try:
            await asyncio.wait({work}, timeout=self._timeout_s)
            if not work.done() and loop.time() - began_s > self._timeout_s + _LAG_S:
                await asyncio.wait({work}, timeout=self._timeout_s)  # it was this loop that was late
            if not work.done():
                raise StoreTimeout(f"no answer in {self._timeout_s} s")
            return work.result()
        finally:
            work.cancel()

    async def _execute(self, calls: Sequence[_Call]) -> list[Any]:
        async with bounded(PATIENCE * self._timeout_s):
            answers = await self._pipeline(calls)
            unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                for text in {calls[at].script.text for at in unknown}:
                    await self._client.script_load(text)
                again = await self._pipeline([calls[at] for at in unknown])
                for at, answer in zip(unknown, again, strict=True):
                    answers[at] = answer
        return answers

    async def _pipeline(self, calls: Sequence[_Call]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.evalsha(call.script.sha, len(call.keys), *call.keys, *call.arguments)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, RedisError):
                raise answer
        return answers
