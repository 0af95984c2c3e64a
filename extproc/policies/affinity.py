"""Requests that begin alike, or have a caller in common, keep to one endpoint: which one belongs to a key is Envoy's to
say, the key is made here. After the texts have been redacted, because that is how the endpoint sees them."""

from __future__ import annotations

from typing import ClassVar

from extproc.config.policy import PolicyMode, PolicySettings
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Services, Verdict


class KeepToEndpoint:
    name: ClassVar[str] = "affinity"
    settings_type: ClassVar[type[PolicySettings]] = PolicySettings

    def __init__(self, settings: PolicySettings, services: Services) -> None:
        self._enforced = settings.mode is PolicyMode.ENFORCE
        self._requests = services.metrics.counter(
            "extproc_affinity_requests_total", "Requests for a pool that is balanced by keys.", ("pool", "key")
        )

    async def on_request(self, ctx: RequestContext) -> Verdict:
        pool = ctx.pool
        if pool is None or pool.affinity is None:
            return CONTINUE
        key = pool.affinity.key(ctx.request, ctx.head, ctx.principal)
        self._requests.labels(pool.name, "none" if key is None else "made").inc()
        if self._enforced:
            ctx.affinity_key = key
        return CONTINUE
