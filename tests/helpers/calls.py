"""A gRPC server of ours with a few plain methods, on a Unix socket, for tests of its HTTP/2."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from extproc.edge.calls import Call
from extproc.edge.http2 import Connection


class Methods:
    """/test/Echo sends back what comes, /test/Hang reads nothing, /test/Fail breaks. Counts what is cancelled."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.running = 0
        self.connections: set[Connection] = set()
        self.handlers = {"/test/Echo": self._echo, "/test/Hang": self._hang, "/test/Fail": self._fail}

    def connection(self) -> Connection:
        connection = Connection(self.handlers.get, self.connections.discard)
        self.connections.add(connection)
        return connection

    async def _echo(self, call: Call) -> None:
        while (message := await call.read()) is not None:
            await call.write(message)

    async def _hang(self, _: Call) -> None:
        self.running += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _fail(self, call: Call) -> None:
        await call.read()
        raise ValueError("a bug")


@contextlib.asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Methods]:
    methods = Methods()
    server = await asyncio.get_running_loop().create_unix_server(methods.connection, path)
    try:
        yield methods
    finally:
        server.close()
        for connection in methods.connections:
            connection.abort()
        await until(lambda: not methods.connections)


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.005)
