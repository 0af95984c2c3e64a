"""The connection to Redis: how it is opened, how long it may take, and what its errors become here.

Must not know: what is stored.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from extproc.stores.errors import StoreTimeout, StoreUnavailable


def connect(url: str, timeout_s: float) -> redis.asyncio.Redis:
    """A client with a pool of connections, made on first use; close it with `aclose()`.

    One retry, at once: a pooled connection may have died while it lay idle. Time-outs are not retried.
    """
    keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    return redis.asyncio.Redis.from_url(
        url,
        **keepalive,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
        decode_responses=False,
    )


@contextlib.asynccontextmanager
async def bounded(timeout_s: float) -> AsyncIterator[None]:
    """Bound everything inside by `timeout_s`. Raises StoreTimeout or StoreUnavailable, nothing of the library's."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (TimeoutError, redis.exceptions.TimeoutError) as error:
        raise StoreTimeout(f"no answer in {timeout_s} s") from error
    except (redis.exceptions.RedisError, OSError) as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
