"""What was used and what it costs, summed up from the ledger."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from extproc.config.model import GatewayConfig
from extproc.stores.ledger import Ledger, Retention
from extproc.usage_summary import Summary

TIMEOUT_S = 5.0
"""A person waits longer than a request does."""


@contextlib.asynccontextmanager
async def opened(config: GatewayConfig) -> AsyncIterator[Ledger]:
    """The gateway's ledger."""
    retention = Retention(config.ledger.max_age_days, config.ledger.max_records)
    ledger = Ledger(config.redis.url.get_secret_value(), TIMEOUT_S, retention)
    try:
        yield ledger
    finally:
        await ledger.close()


async def sum_up(config: GatewayConfig, summary: Summary, since_s: float | None) -> int:
    """Add every record from `since_s` on; how many could not be read. Raises StoreUnavailable, StoreTimeout."""
    unreadable = 0
    async with opened(config) as ledger:
        async for page in ledger.pages(since_s):
            for record in page:
                try:
                    summary.add(record)
                except (ValueError, TypeError, OverflowError):
                    unreadable += 1
    return unreadable
