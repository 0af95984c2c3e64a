"""Kept answers: counted and purged. Every function raises StoreUnavailable or StoreTimeout."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from extproc.audit.record import Action
from extproc.config.model import GatewayConfig
from extproc.operations.trail import ActionTrail
from extproc.stores.answer_census import AnswerCensus, Held, Which

TIMEOUT_S = 5.0
"""A person waits longer than a request does."""


async def held(config: GatewayConfig, which: Which) -> Mapping[tuple[str, str, str], Held]:
    """What is kept, by tenant, model and namespace."""
    async with _census(config) as census:
        return await census.held(which)


async def purge(config: GatewayConfig, trail: ActionTrail, which: Which) -> int:
    """Forget answers, at once and everywhere; how many there were. Raises NotRecorded."""
    await trail.ready()
    async with _census(config) as census:
        gone = await census.purge(which)
    await trail.note(Action.CACHE_PURGED, _said(which))
    return gone


def _said(which: Which) -> str:
    named = {"tenant": which.tenant, "model": which.model, "namespace": which.namespace}
    return " ".join(f"{name}={value}" for name, value in named.items() if value is not None) or "all"


@contextlib.asynccontextmanager
async def _census(config: GatewayConfig) -> AsyncIterator[AnswerCensus]:
    census = AnswerCensus(config.redis.url.get_secret_value(), TIMEOUT_S)
    try:
        yield census
    finally:
        await census.close()
