"""No decision without a record: while audit records can't be written, requests are refused (or, `open`, go on)."""

from __future__ import annotations

from typing import ClassVar

from extproc.config.policy import PolicySettings
from extproc.errors import DependencyError
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Services, Verdict


class Settings(PolicySettings):
    """What becomes of requests while the audit log (section `audit`) can't be written."""


class RequireAudit:
    """The policy `audit`."""

    name: ClassVar[str] = "audit"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._trail = services.audit

    async def on_request(self, ctx: RequestContext) -> Verdict:
        if not self._trail.available:
            raise DependencyError("audit_log", "records can't be written")
        return CONTINUE
