"""Answers what the gateway itself knows: `GET /v1/models[/{id}]` with the models this caller may use, and `GET /v2`."""

from __future__ import annotations

from typing import ClassVar

from extproc.config.policy import PolicySettings
from extproc.dialects.registry import model_body, models_body, server_body
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Reject, Respond, Services, Verdict
from extproc.rejection import model_not_found


class ListModels:
    name: ClassVar[str] = "list_models"
    settings_type: ClassVar[type[PolicySettings]] = PolicySettings

    def __init__(self, settings: PolicySettings, services: Services) -> None:
        created_s = int(services.clock.wall())
        self._created = dict.fromkeys(services.catalog.models, created_s)

    async def on_head(self, ctx: RequestContext) -> Verdict:
        wanted = ctx.route.model_id
        if not ctx.route.answered_here:
            return CONTINUE
        if ctx.route.describes_server:
            return _json(server_body())
        usable = [(name, at) for name, at in self._created.items() if ctx.principal.may_use(name)]
        if wanted is None:
            return _json(models_body(usable))
        for name, created_s in usable:
            if name == wanted:
                return _json(model_body(name, created_s))
        # A model that exists but isn't allowed is not told apart here: the list must not leak names.
        return Reject(model_not_found(wanted))


def _json(body: bytes) -> Respond:
    return Respond(200, body, (("content-type", "application/json"),))
