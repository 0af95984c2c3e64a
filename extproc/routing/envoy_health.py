"""Which endpoints Envoy finds unhealthy, for the pools where the service names the one to take: Envoy tries what is
named whether it is healthy or not.

Runs in the supervisor, once for all its workers, who read what it found from a file beside the board of loads. Envoy is
asked, because its checks know the servers' TLS, and because it also ejects. Must not know: who else keeps endpoints
back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import msgspec

from extproc.config.model import GatewayConfig

ASK_S = 1.0
_TIMEOUT_S = 2.0
_LIMIT_BYTES = 64 * 1024 * 1024
_NAME = "down.json"
_LINE = re.compile(r"^([^/\n]+)/[^\n]*?::([^\n]+?)::health_flags::(?!healthy$)", re.MULTILINE)
_log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder(dict[str, frozenset[str]]).decode

Down = Mapping[str, frozenset[str]]
"""The addresses of unhealthy endpoints, by pool."""


def board_of(directory: str) -> Path:
    """Where a supervisor's file is."""
    return Path(directory) / _NAME


def unhealthy(page: str) -> Down:
    """What Envoy's `/clusters` says. Clusters are called POOL/..., and no pool's name has a slash."""
    down: dict[str, set[str]] = {}
    for pool, address in _LINE.findall(page):
        down.setdefault(pool, set()).add(address)
    return {pool: frozenset(addresses) for pool, addresses in down.items()}


class DownBoard:
    """A worker's view; empty while nobody says anything."""

    def __init__(self, board: Path) -> None:
        self._board = board
        self._seen = b""
        self.down: Down = {}

    def look(self) -> None:
        """Read it again, if it has changed."""
        with contextlib.suppress(OSError):
            content = self._board.read_bytes()
            if content != self._seen:
                self.down, self._seen = _decode(content), content


class HealthWatch:
    """Asks until it is cancelled. While Envoy's admin interface doesn't answer, nobody counts as unhealthy."""

    def __init__(self, board: Path, config: GatewayConfig) -> None:
        self._board = board
        self._config = config
        self._published: Down = {}
        self._silent = False

    def change(self, config: GatewayConfig) -> None:
        self._config = config

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            while True:
                pools = [name for name, pool in self._config.pools.items() if pool.balancing.is_ours]
                down = await self._ask(session, pools) if pools else {}
                if down != self._published:
                    self._publish(down)
                await asyncio.sleep(ASK_S)

    async def _ask(self, session: aiohttp.ClientSession, pools: list[str]) -> Down:
        names = "|".join(map(re.escape, pools))
        try:
            url = f"http://{self._config.gateway.admin}/clusters"
            async with session.get(url, params={"filter": f"^({names})/"}, allow_redirects=False) as answer:
                page = await _page(answer) if answer.status == 200 else None
                trouble = None if page is not None else f"status {answer.status}, or a page too large"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            page, trouble = None, repr(error)
        self._note(trouble)
        return unhealthy(page or "")

    def _note(self, trouble: str | None) -> None:
        """One log line when Envoy is silent, and one when it speaks again."""
        if (trouble is not None) is self._silent:
            return
        self._silent = trouble is not None
        facts = {"address": str(self._config.gateway.admin), "error": trouble}
        _log.warning("Envoy says nothing of health" if self._silent else "Envoy speaks of health again", extra=facts)

    def _publish(self, down: Down) -> None:
        unseen = self._board.with_suffix(".new")
        try:
            unseen.write_bytes(msgspec.json.encode(down))
            unseen.replace(self._board)
        except OSError:
            _log.exception("the workers can't be told which endpoints are down")
        else:
            self._published = down


async def _page(answer: aiohttp.ClientResponse) -> str | None:
    """The whole page; None if it is too large."""
    page = bytearray()
    async for part in answer.content.iter_any():
        page += part
        if len(page) > _LIMIT_BYTES:
            return None
    return page.decode("utf-8", "replace")
