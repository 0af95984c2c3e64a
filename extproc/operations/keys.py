"""API keys: made, shown and ended. Every function raises StoreUnavailable or StoreTimeout."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from extproc.audit.record import Action
from extproc.config.model import GatewayConfig
from extproc.config.tier import Tier
from extproc.operations.trail import ActionTrail, NotRecorded
from extproc.stores.keys import CreatedKey, KeyHasher, KeyRecord, KeyStore

TIMEOUT_S = 5.0
"""A person waits longer than a request does."""

EVERY_MODEL = "*"


class UnknownModels(Exception):
    """A key was to be made for models that are not configured."""

    def __init__(self, unknown: Sequence[str], known: Sequence[str]) -> None:
        super().__init__(f"no such model: {', '.join(unknown)} (there are: {', '.join(known)})")


async def create(
    config: GatewayConfig, trail: ActionTrail, *, name: str, team: str, tier: Tier, models: Sequence[str]
) -> CreatedKey:
    """A new key; one that could not be recorded is ended again. Raises UnknownModels, NotRecorded."""
    unknown = [model for model in models if model != EVERY_MODEL and model not in config.models]
    if unknown:
        raise UnknownModels(unknown, tuple(config.models))
    await trail.ready()
    async with _store(config) as store:
        created = await store.create(name=name, team=team, tier=tier, models=models)
        try:
            await trail.note(Action.KEY_CREATED, created.record.id, created.record.team)
        except NotRecorded:
            await store.revoke(created.record.id)
            raise
    return created


async def every(config: GatewayConfig) -> list[KeyRecord]:
    """Every key in Redis, oldest first."""
    async with _store(config) as store:
        return await store.list()


async def revoke(config: GatewayConfig, trail: ActionTrail, key_id: str) -> KeyRecord | None:
    """End a key, at once and everywhere; None if there is none with this id. Raises NotRecorded."""
    await trail.ready()
    async with _store(config) as store:
        record = await store.revoke(key_id)
    if record is not None:
        await trail.note(Action.KEY_REVOKED, record.id, record.team)
    return record


@contextlib.asynccontextmanager
async def _store(config: GatewayConfig) -> AsyncIterator[KeyStore]:
    store = KeyStore(config.redis.url.get_secret_value(), KeyHasher(config.keys.secret), TIMEOUT_S)
    try:
        yield store
    finally:
        await store.close()
