"""One Triton's model repository over HTTP: what is loaded, load, unload.

Source: Triton's "Model Repository Extension" (`/v2/repository`). Must not know: when a model is loaded, or why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct

from extproc.config.address import TcpAddress
from extproc.errors import DependencyError

_NAME = "triton"
_ANSWER_LIMIT_BYTES = 4 << 20
_MOST_SHOWN_CHARS = 300
_ASK_S = 2.0
_LOOK_S = 0.1
READY, LOADING, UNLOADING = "READY", "LOADING", "UNLOADING"
BUSY = frozenset({READY, LOADING, UNLOADING})
"""In these a version of a model takes memory; a load or an unload that nobody waits for any more goes on."""


class _Version(Struct):
    name: str
    state: str = ""


_versions = msgspec.json.Decoder(list[_Version]).decode


class _Error(Struct):
    error: str = ""


_error = msgspec.json.Decoder(_Error).decode


class RepositoryError(DependencyError):
    """The server can't be reached, or could not do it. The message is the server's: for operators, not for clients."""

    def __init__(self, message: str) -> None:
        super().__init__(_NAME, message[:_MOST_SHOWN_CHARS])


class ModelRepository:
    """Every method raises RepositoryError. `session` outlives it."""

    def __init__(self, session: aiohttp.ClientSession, server: TcpAddress) -> None:
        self._session = session
        self._base = f"http://{server}/v2/repository"

    async def states(self) -> Mapping[str, frozenset[str]]:
        """By model the states of its versions, as Triton names them; empty for one that was never loaded."""
        answer = await self._post("/index", b"{}", _ASK_S)
        try:
            listed = _versions(answer)
        except msgspec.DecodeError as error:
            raise RepositoryError(f"an index that can't be read: {error}") from None
        states: dict[str, set[str]] = {}
        for version in listed:
            states.setdefault(version.name, set()).add(version.state)
        return {name: frozenset(found - {""}) for name, found in states.items()}

    async def load(self, model: str, timeout_s: float) -> None:
        """Returns when it is loaded. One that is loaded already is loaded anew where its files have changed."""
        await self._post(f"/models/{quote(model, safe='')}/load", b"{}", timeout_s)

    async def unload(self, model: str, timeout_s: float) -> None:
        """Returns when it is gone: Triton answers at once, and lets requests that it has begun come to their end."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._post(f"/models/{quote(model, safe='')}/unload", b"{}", timeout_s)
                while BUSY & (await self.states()).get(model, frozenset()):  # noqa: ASYNC110 (nothing can be awaited)
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise RepositoryError(f"not unloaded in {timeout_s} s") from None

    async def _post(self, path: str, body: bytes, timeout_s: float) -> bytes:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.post(
                self._base + path, data=body, timeout=timeout, allow_redirects=False
            ) as answer:
                content = await answer.content.read(_ANSWER_LIMIT_BYTES)
                while len(content) < _ANSWER_LIMIT_BYTES and (more := await answer.content.read(_ANSWER_LIMIT_BYTES)):
                    content += more
        except TimeoutError:
            raise RepositoryError(f"no answer in {timeout_s} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RepositoryError(f"{type(error).__name__}: {error}") from None
        if answer.status != 200:
            raise RepositoryError(_said(content) or f"status {answer.status}")
        return content


def _said(content: bytes) -> str:
    try:
        return _error(content).error
    except msgspec.DecodeError:
        return ""
