"""A server in a thread and an event loop of its own: nothing it is asked can hold up the loop that starts it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable

from extproc.admin.server import AdminServer

_CLOSE_TIMEOUT_S = 5.0


class AdminThread:
    """Made by `start`; close it."""

    def __init__(self, serve: Callable[[], Awaitable[AdminServer]]) -> None:
        self._serve = serve
        self._listening: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        # A daemon: a process that ends does not wait for a handler that hangs.
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)

    @classmethod
    async def start(cls, serve: Callable[[], Awaitable[AdminServer]]) -> AdminThread:
        """Call `serve` in the thread. Raises what it raises."""
        started = cls(serve)
        started._thread.start()
        await asyncio.wrap_future(started._listening)
        return started

    @property
    def port(self) -> int:
        """Where the server listens."""
        return self._listening.result()

    async def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, _CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        try:
            server = await self._serve()
        except BaseException as error:
            self._listening.set_exception(error)
            return
        self._listening.set_result(server.port)
        await self._stop.wait()
        await server.close()
