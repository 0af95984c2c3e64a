"""Who is calling: an API key becomes a principal.

The key comes as `authorization: Bearer KEY` or as `x-api-key: KEY`. Which of absent, wrong and revoked it was is not
told to the caller.
"""

from __future__ import annotations

from typing import ClassVar

from extproc.config.policy import PolicySettings
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Reject, Services, Verdict
from extproc.rejection import unauthenticated


class Identify:
    name: ClassVar[str] = "identify"
    settings_type: ClassVar[type[PolicySettings]] = PolicySettings

    def __init__(self, settings: PolicySettings, services: Services) -> None:
        self._keys = services.keys
        self._metrics = services.metrics
        self._degraded = False

    async def on_head(self, ctx: RequestContext) -> Verdict:
        key = _presented_key(ctx.head.headers)
        if not key:
            return Reject(unauthenticated("No API key was given. Send it as `Authorization: Bearer KEY`."))
        try:
            principal = await self._keys.authenticate(key)
        finally:
            self._note_degraded(self._keys.degraded)
        if self._degraded:
            ctx.degraded.add(self.name)
        if principal is None:
            return Reject(unauthenticated("The API key is not valid."))
        ctx.principal = principal
        return CONTINUE

    def _note_degraded(self, now: bool) -> None:
        if now is not self._degraded:
            self._degraded = now
            self._metrics.degraded(self.name, now)


def _presented_key(headers: dict[str, str]) -> str:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return headers.get("x-api-key", "").strip()
