"""Is this a request we serve: the model does this operation, is allowed to this caller, and the caps fit.

The body's form was checked when it was parsed; the prompt's length against the context window is `count_tokens`'s.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic

from extproc.config.policy import PolicySettings
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Reject, Services, Verdict
from extproc.rejection import invalid_request, model_not_allowed


class Settings(PolicySettings):
    """What a request may ask for."""

    max_choices: Annotated[int, pydantic.Field(ge=1, le=128)] = 8
    """Most answers one request may ask for (`n`)."""


class Validate:
    name: ClassVar[str] = "validate"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._max_choices = settings.max_choices

    async def on_request(self, ctx: RequestContext) -> Verdict:
        request, model = ctx.request, ctx.model
        if not ctx.principal.may_use(model.name):
            return Reject(model_not_allowed(model.name))
        if request.operation not in model.config.operations:
            return Reject(invalid_request(f"The model `{model.name}` does not support {request.operation}.", "model"))
        if request.choices > self._max_choices:
            return Reject(invalid_request(f"`n` is at most {self._max_choices} here.", "n"))
        limit = request.output_limit_tokens
        if limit is not None and limit > model.output_cap_tokens:
            return Reject(
                invalid_request(
                    f"max_tokens is too large: {limit}. This model gives at most {model.output_cap_tokens} tokens.",
                    "max_tokens",
                )
            )
        return CONTINUE
