"""Who is calling: an API key, a token or a workload's certificate becomes a principal.

A key comes as `authorization: Bearer KEY` or as `x-api-key: KEY`. A token that Envoy has verified it has also taken out
of `authorization`, so one that is still there is no good. Which of wrong, revoked and unknown it was is not told to the
caller.
"""

from __future__ import annotations

from typing import ClassVar

from extproc.config.identities import Credentials
from extproc.config.policy import PolicySettings
from extproc.policies.context import RequestContext
from extproc.policies.credentials import KnownCallers
from extproc.policies.interface import CONTINUE, Reject, Services, Verdict
from extproc.principal import Principal
from extproc.rejection import unauthenticated


class Identify:
    name: ClassVar[str] = "identify"
    settings_type: ClassVar[type[PolicySettings]] = PolicySettings

    def __init__(self, settings: PolicySettings, services: Services) -> None:
        self._keys = services.keys
        self._callers = KnownCallers(services.identities)
        self._wants_both = services.identities.require is Credentials.BOTH
        self._metrics = services.metrics
        self._degraded = False

    async def on_head(self, ctx: RequestContext) -> Verdict:
        workload = self._callers.workload(ctx.head.headers)
        if self._wants_both and workload is None:
            return Reject(unauthenticated("No certificate was shown of a workload that is known here."))
        key = _presented_key(ctx.head.headers)
        if key:
            caller = None if self._callers.looks_like_a_token(key) else await self._of_key(ctx, key)
        elif ctx.head.claims:
            caller = self._callers.bearer(ctx.head.claims)
        elif workload is not None and not self._wants_both:
            caller = workload
        else:
            return Reject(unauthenticated("No API key was given. Send it as `Authorization: Bearer KEY`."))
        # A key that was stolen from another team is of no use with one's own certificate.
        foreign = self._wants_both and workload is not None and caller is not None and workload.team != caller.team
        if caller is None or foreign:
            return Reject(unauthenticated("The API key is not valid."))
        ctx.principal = caller
        return CONTINUE

    async def _of_key(self, ctx: RequestContext, key: str) -> Principal | None:
        try:
            principal = await self._keys.authenticate(key)
        finally:
            self._note_degraded(self._keys.degraded)
        if self._degraded:
            ctx.degraded.add(self.name)
        return principal

    def _note_degraded(self, now: bool) -> None:
        if now is not self._degraded:
            self._degraded = now
            self._metrics.degraded(self.name, now)


def _presented_key(headers: dict[str, str]) -> str:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return headers.get("x-api-key", "").strip()
