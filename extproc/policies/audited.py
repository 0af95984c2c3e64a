"""One policy's decisions, put on the audit log with what is known of the exchange. Never any of its content."""

from __future__ import annotations

from collections.abc import Mapping

from extproc.audit.record import Action, Entry
from extproc.config.policy import PolicyMode, PolicySettings
from extproc.policies.context import RequestContext
from extproc.policies.interface import Services

_NONE: Mapping[str, int] = {}


class Audited:
    """What the policy `name` decides. A shadowed one changes nothing, so nothing of it is on record."""

    def __init__(self, name: str, settings: PolicySettings, services: Services) -> None:
        self._name = name
        self._trail = services.audit
        self._clock = services.clock
        self._config_version = services.config_version
        self._acts = settings.mode is PolicyMode.ENFORCE

    def decided(
        self, ctx: RequestContext, action: Action, reason: str = "", entities: Mapping[str, int] = _NONE
    ) -> None:
        """`reason` is a label from a closed set; `entities` counts what was found by its kind. Never blocks."""
        if not self._acts:
            return
        self._trail.record(
            Entry(
                time_s=self._clock.wall(),
                actor=ctx.principal.id,
                team=ctx.principal.team,
                action=action,
                policy=self._name,
                reason=reason,
                entities=entities,
                config_version=self._config_version,
                request_id=ctx.request_id,
                operation=ctx.operation,
                model=ctx.model_name,
            )
        )
