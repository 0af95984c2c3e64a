"""What is left of a caller's limits and budgets. Reading them changes no count."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from extproc.config.model import GatewayConfig
from extproc.config.policy import PolicyMode
from extproc.limits import Charge, Limit, State
from extproc.operations import keys
from extproc.policies.limit import LimitRequests
from extproc.policies.limit_rules import Rules
from extproc.policies.limit_settings import Settings
from extproc.principal import Principal
from extproc.stores.limits import RedisLimits

TIMEOUT_S = 5.0
"""A person waits longer than a request does."""


class Standing(Struct, frozen=True):
    """One limit of a caller, and how it stands."""

    limit: Limit
    state: State


async def find_principal(config: GatewayConfig, principal_id: str) -> Principal | None:
    """Who has this id: a key of the configuration, or one in Redis. Raises StoreUnavailable, StoreTimeout."""
    static = config.keys.static.get(principal_id)
    if static is not None:
        return Principal(principal_id, static.team, static.tier, frozenset(static.models))
    for record in await keys.every(config):
        if record.id == principal_id:
            return Principal(record.id, record.team, record.tier, frozenset(record.models))
    return None


def mode(config: GatewayConfig) -> PolicyMode:
    """Whether limits are enforced, only watched, or off."""
    return _settings(config).mode


async def standings(config: GatewayConfig, principal: Principal, model: str) -> Sequence[Standing]:
    """Every limit that holds for this caller and model ("": those that hold whatever the model), unscaled by pressure.

    Raises StoreUnavailable, StoreTimeout.
    """
    applied = Rules(_settings(config)).applied(principal, model)
    if not applied:
        return ()
    store = RedisLimits(config.redis.url.get_secret_value(), TIMEOUT_S)
    try:
        # An attempt to take nothing: it always fits, and says what is left.
        looked = await store.reserve("", [Charge(one.key, one.limit, 0) for one in applied], 0)
    finally:
        await store.close()
    return [Standing(one.limit, state) for one, state in zip(applied, looked.states, strict=True)]


def _settings(config: GatewayConfig) -> Settings:
    own = config.policies.get(LimitRequests.name)
    return own if isinstance(own, Settings) else Settings()
