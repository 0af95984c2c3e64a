"""What rules and experiments want to know of a request. Must not know: what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from extproc.config.experiments import Sticky
from extproc.dialects.interface import InferenceRequest
from extproc.dialects.openai_requests import ChatRequest, OpenAiRequest
from extproc.policies.context import RequestContext
from extproc.principal import Principal
from extproc.routing.experiments import Experiment
from extproc.routing.rules import Facts

SESSION_HEADER = "x-session-id"
_OPENING_CHARS = 4096
_USERS = ("user", "input")


def facts_of(request: InferenceRequest, principal: Principal, headers: dict[str, str], now_s: float) -> Facts:
    """All that costs nothing to know."""
    return Facts(
        request.model,
        request.operation,
        principal.id,
        principal.team,
        principal.tier,
        headers,
        _has_images(request),
        _offers_tools(request),
        now_s,
    )


def _has_images(request: InferenceRequest) -> bool:
    if not isinstance(request, ChatRequest):
        return False
    contents = (message.get("content") for message in request.messages)
    return any(part["type"] == "image_url" for content in contents if type(content) is list for part in content)


def _offers_tools(request: InferenceRequest) -> bool:
    return isinstance(request, OpenAiRequest) and bool(request.fields.get("tools") or request.fields.get("functions"))


def last_user_text(request: InferenceRequest) -> str:
    """What the encoder judges the task by: the last text that a user wrote; empty where there is none."""
    return next((segment.text for segment in reversed(request.texts()) if segment.role in _USERS), "")


def subject_of(experiment: Experiment, request: InferenceRequest, ctx_headers: dict[str, str], who: Principal) -> str:
    """Whom an experiment draws for. Users, conversations and headers of different teams are different ones."""
    value: Sequence[Any] | None = None
    if experiment.sticky is Sticky.USER:
        value = _user(request)
    elif experiment.sticky is Sticky.SESSION:
        value = _session(request, ctx_headers)
    elif experiment.sticky is Sticky.HEADER and experiment.header in ctx_headers:
        value = (ctx_headers[experiment.header],)
    elif experiment.sticky is Sticky.REQUEST:
        value = (ctx_headers.get("x-request-id", ""),)
    return repr((who.team, *value)) if value is not None else repr((who.id,))


def _user(request: InferenceRequest) -> tuple[str] | None:
    if not isinstance(request, OpenAiRequest):
        return None
    user = request.fields.get("user") or request.fields.get("safety_identifier")
    return (user,) if type(user) is str else None


def _session(request: InferenceRequest, headers: dict[str, str]) -> tuple[str, ...] | None:
    """By its name, or by how it begins, up to the first word of a user: that stays the same from turn to turn."""
    if headers.get(SESSION_HEADER):
        return ("named", headers[SESSION_HEADER])
    opening = ["begins"]
    for segment in request.texts():
        opening.append(segment.text[:_OPENING_CHARS])
        if segment.role in _USERS:
            return tuple(opening)
    return None


def subject_in(ctx: RequestContext, experiment: Experiment) -> str:
    """`subject_of` this exchange."""
    return subject_of(experiment, ctx.request, ctx.head.headers, ctx.principal)
