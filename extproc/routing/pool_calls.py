"""Requests of the service's own to a pool, through Envoy's fallback listener: Envoy balances, retries and ejects.

Owns the HTTP of it. Must not know: what is asked, or why another pool has to answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from msgspec import Struct
from yarl import URL

from extproc.config.address import TcpAddress, UnixAddress
from extproc.errors import DependencyError

ENDPOINT = "x-extproc-endpoint"
"""The response header by which the fallback listener says which endpoint answered."""

DETAILS = "x-extproc-details"
"""And the one that says who made the answer, and why."""

_NAME = "envoy"
_OVERFLOW = "overflow"  # a circuit breaker let nothing through: the endpoint was chosen, and never asked
_CONNECT_TIMEOUT_S = 2.0
_MAX_HEADER_BYTES = 64 << 10
_OWN_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class PoolAnswer(Struct):
    """What came back; `chunks` raises DependencyError where the answer breaks off. `endpoint` is empty where Envoy
    doesn't say whose it is, or answered itself."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]
    endpoint: str = ""


class PoolCalls:
    """One Envoy's fallback listener. Made in a running event loop; close it."""

    def __init__(self, address: TcpAddress | UnixAddress) -> None:
        # A connection for each request: an idle one that Envoy has just closed would fail a request for nothing, and
        # another one on the same machine costs next to nothing. How many there may be is said by circuit breakers.
        connector: aiohttp.BaseConnector
        if isinstance(address, UnixAddress):
            connector = aiohttp.UnixConnector(address.path, limit=0, force_close=True)
        else:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
        host = str(address) if isinstance(address, TcpAddress) else "gateway"
        self._base = f"http://{host}"
        self._session = aiohttp.ClientSession(
            connector=connector,
            # How long a pool may take is said by its route.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_OWN_HEADERS,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )

    @asynccontextmanager
    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[PoolAnswer]:
        """The answer as it comes; leaving the block before its end gives the request up. Raises DependencyError when
        Envoy can't be reached."""
        url = URL(self._base + path, encoded=True)
        try:
            response = await self._session.request(method, url, headers=headers, data=body, allow_redirects=False)
        except (aiohttp.ClientError, OSError) as error:
            raise DependencyError(_NAME, f"the fallback listener failed: {type(error).__name__}") from error
        try:
            named = {name.lower(): value for name, value in response.headers.items()}
            yield PoolAnswer(response.status, named, _chunks(response), _endpoint(named))
        finally:
            response.close()

    async def close(self) -> None:
        await self._session.close()


def _endpoint(headers: Mapping[str, str]) -> str:
    return "" if _OVERFLOW in headers.get(DETAILS, "") else headers.get(ENDPOINT, "")


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for data in response.content.iter_any():
            yield data
    except (aiohttp.ClientError, OSError) as error:
        raise DependencyError(_NAME, f"an answer broke off: {type(error).__name__}") from error
