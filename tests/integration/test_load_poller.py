"""The poller before servers that answer well, badly, hugely or not at all, and what its workers read of it."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable

import pytest

from extproc import config as configuration
from extproc.config.model import GatewayConfig
from extproc.routing.load_board import LoadBoard, board_of
from extproc.routing.load_poller import LoadPoller, Watched
from extproc.routing.pressure import Ladder, Rung
from extproc.routing.triton_metrics import LIMIT_BYTES

LADDER = Ladder((Rung(0.5, 0.2), Rung(0.9, 0.6)), dwell_s=60, hold_unknown_s=60)
QUIET = b'nv_inference_pending_request_count{model="m",version="1"} 0\n'
FULL = b'nv_inference_pending_request_count{model="m",version="1"} 99\n'


class Server:
    """Says what it is told to."""

    def __init__(self) -> None:
        self.status, self.page = 200, FULL

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 {self.status} X\r\ncontent-length: {len(self.page)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + self.page)
            await writer.drain()
        writer.close()

    def stop(self) -> None:
        self._server.close()


@pytest.fixture
async def servers() -> AsyncIterator[tuple[Server, Server, tuple[int, int]]]:
    a, b = Server(), Server()
    ports = (await a.start(), await b.start())
    yield a, b, ports
    a.stop()
    b.stop()


def config(ports: tuple[int, ...], weights: tuple[int, ...] = (1, 1)) -> GatewayConfig:
    clusters = ", ".join(
        f'c{port}: {{weight: {weight}, endpoints: ["127.0.0.1:{port}"], metrics: ["127.0.0.1:{port}"]}}'
        for port, weight in zip(ports, weights, strict=True)
    )
    return configuration.parse(
        f"""
keys: {{hash_secret: a-secret-of-enough-letters}}
polling: {{interval_s: 0.1, stale_after_s: 0.5}}
models: {{m: {{pool: p, operations: [embeddings], context_window: 100}}}}
pools:
  p: {{dialect: kserve, model: m, full_queue: 10, clusters: {{{clusters}}}}}
  dark: {{dialect: kserve, model: m, clusters: {{c: {{endpoints: ["127.0.0.1:9"]}}}}}}
""",
        {},
        {},
    )


@contextlib.asynccontextmanager
async def running(poller: LoadPoller) -> AsyncIterator[None]:
    task = asyncio.create_task(poller.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(board: LoadBoard, condition: Callable[[LoadBoard], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition(board):
            await asyncio.sleep(0.02)
            board.look()


async def test_from_metrics_to_what_a_worker_reads(
    servers: tuple[Server, Server, tuple[int, int]], tmp_path: pathlib.Path
) -> None:
    _, b, ports = servers
    path = board_of(str(tmp_path))
    assert LoadBoard(path).level("p") == 0
    poller = LoadPoller(path, Watched(config(ports, (3, 1)), LADDER))
    board = LoadBoard(path)
    b.page = QUIET
    async with running(poller):
        await until(board, lambda board: board.level("p") == 1)
        assert board.pools["p"].pressure == 0.75
        assert board.pools["p"].endpoints[f"127.0.0.1:{ports[0]}"].queued == 99
        assert set(board.pools) == {"p"}
        poller.change(Watched(config((ports[1],), (1,)), LADDER))  # reloaded, without the busy one
        await until(board, lambda board: board.pools["p"].pressure == 0)
        assert board.level("p") == 1
        poller.change(Watched(config(ports), Ladder()))  # and then not adaptive any more
        await until(board, lambda board: board.pools["p"].pressure == 0.5)
        assert board.level("p") == 0
    assert LoadBoard(path).pools["p"].pressure == 0.5


@pytest.mark.parametrize(
    ("status", "page"), [(500, FULL), (302, FULL), (200, b"x" * (LIMIT_BYTES + 1)), (200, b"\xff\xfe{}"), (200, b"")]
)
async def test_a_server_that_says_nothing_is_left_out(
    servers: tuple[Server, Server, tuple[int, int]], tmp_path: pathlib.Path, status: int, page: bytes
) -> None:
    a, b, ports = servers
    board = LoadBoard(board_of(str(tmp_path)))
    a.status, a.page = status, page
    async with running(LoadPoller(board_of(str(tmp_path)), Watched(config(ports), LADDER))):
        await until(board, lambda board: board.level("p") == 2)
        assert board.pools["p"].pressure == 1.0
        b.stop()
        await until(board, lambda board: board.pools["p"].pressure is None)
        assert board.level("p") == 2


async def test_many_workers_see_the_same(
    servers: tuple[Server, Server, tuple[int, int]], tmp_path: pathlib.Path
) -> None:
    _, _, ports = servers
    path = board_of(str(tmp_path))
    async with running(LoadPoller(path, Watched(config(ports), LADDER))):
        await until(LoadBoard(path), lambda board: board.level("p") == 2)
        boards = [LoadBoard(path) for _ in range(4)]  # one that starts now knows at once
        assert {board.level("p") for board in boards} == {2}
