"""What the supervisor measured of the pools, where every worker of it can read the same.

One measures for all: workers of one service never disagree, and servers are asked once, however many workers there
are. Owns the file between them, which is replaced whole, so that a reader never sees half of it. Must not know: how
it was measured.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from extproc.routing.pressure import CALM, EndpointLoad

LOOK_S = 0.25
_NAME = "loads.json"


class PoolLoad(Struct, frozen=True):
    """One pool's. `pressure` None: nothing is known. `endpoints` are those whose words are fresh, by `host:port`."""

    pressure: float | None
    level: int
    endpoints: Mapping[str, EndpointLoad]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, PoolLoad]).decode


def board_of(directory: str) -> Path:
    """Where a supervisor's board is."""
    return Path(directory) / _NAME


def publish(board: Path, pools: Mapping[str, PoolLoad]) -> None:
    """Replace what stands there. Raises OSError."""
    unseen = board.with_suffix(".new")
    unseen.write_bytes(_encode(pools))
    unseen.replace(board)


class LoadBoard:
    """A worker's view. An empty or a missing board says that nobody measures."""

    def __init__(self, board: Path) -> None:
        self._board = board
        self._seen = b""
        self.pools: Mapping[str, PoolLoad] = {}
        self.look()

    def level(self, pool: str) -> int:
        load = self.pools.get(pool)
        return CALM if load is None else load.level

    def look(self) -> None:
        """Read it again, if it has changed."""
        with contextlib.suppress(OSError):
            content = self._board.read_bytes()
            if content != self._seen:
                self.pools, self._seen = _decode(content), content

    async def keep_looking(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()
