"""Which pool serves this request. The cluster and the endpoint within the pool are Envoy's choice, by its weights."""

from __future__ import annotations

from typing import ClassVar

from extproc.config.policy import PolicySettings
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Reject, Services, Verdict


class Route:
    name: ClassVar[str] = "route"
    settings_type: ClassVar[type[PolicySettings]] = PolicySettings

    def __init__(self, settings: PolicySettings, services: Services) -> None:
        pass

    async def on_request(self, ctx: RequestContext) -> Verdict:
        pool = ctx.model.pool
        refusal = pool.dialect.check(ctx.request)
        if refusal is not None:
            return Reject(refusal)
        ctx.pool = pool
        return CONTINUE
