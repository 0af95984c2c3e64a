"""Why a request is refused, as a value.

Owns the closed list of refusals a client can see (PRODUCT contract: OpenAI status codes, error types and
codes). Knows nothing of HTTP bodies: `dialects` renders a `Rejection` in the client's own format.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refusal: HTTP `status`, OpenAI error `type` and `code`, human `message`, offending `param`.

    `reason` is a label from a closed set (metrics, usage event); it never carries request text.
    `retry_after_s` is sent as `retry-after` on 429 and 503.
    """

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    reason: str = "invalid_request"
    retry_after_s: int | None = None
    headers: tuple[tuple[str, str], ...] = field(default=())


_SHOWN_CHARS = 100


def _shown(name: str) -> str:
    """As much of a name the client gave as an error needs to repeat."""
    return name if len(name) <= _SHOWN_CHARS else f"{name[:_SHOWN_CHARS]}…"


def invalid_request(
    message: str, param: str | None = None, code: str | None = None, reason: str = "invalid_request"
) -> Rejection:
    """400: the request itself is wrong; retrying it unchanged can't help."""
    return Rejection(400, "invalid_request_error", code, message, param, reason)


def unauthenticated(message: str) -> Rejection:
    """401: no key, a wrong key or a revoked key; which of them is not told apart for the caller."""
    return Rejection(
        401,
        "invalid_request_error",
        "invalid_api_key",
        message,
        reason="unauthenticated",
        headers=(("www-authenticate", "Bearer"),),
    )


def model_not_allowed(model: str) -> Rejection:
    """403: the model exists, this principal may not use it."""
    return Rejection(
        403,
        "invalid_request_error",
        "model_not_allowed",
        f"Your key is not allowed to use the model `{_shown(model)}`.",
        "model",
        reason="model_not_allowed",
    )


def model_not_found(model: str) -> Rejection:
    """404: no such public model."""
    return Rejection(
        404,
        "invalid_request_error",
        "model_not_found",
        f"The model `{_shown(model)}` does not exist.",
        "model",
        reason="model_not_found",
    )


def model_version_not_found(model: str, version: str) -> Rejection:
    """404: the model is there, this version of it is not."""
    return Rejection(
        404,
        "invalid_request_error",
        "model_not_found",
        f"The model `{_shown(model)}` has no version {_shown(version)}.",
        "model",
        reason="model_not_found",
    )


def unknown_path(method: str, path: str) -> Rejection:
    """404: nothing is served at this path."""
    return Rejection(
        404, "invalid_request_error", "unknown_url", f"Unknown request URL: {method} {path}.", reason="unknown_path"
    )


def method_not_allowed(method: str, path: str, allowed: str) -> Rejection:
    """405: the path exists, for another method."""
    return Rejection(
        405,
        "invalid_request_error",
        "method_not_allowed",
        f"{method} is not supported on {path}; use {allowed}.",
        reason="method_not_allowed",
        headers=(("allow", allowed),),
    )


def request_too_large(limit_bytes: int) -> Rejection:
    """413: the body is over the configured limit."""
    return Rejection(
        413,
        "invalid_request_error",
        "request_too_large",
        f"The request body is larger than {limit_bytes} bytes.",
        reason="request_too_large",
    )


def content_filtered(message: str, reason: str) -> Rejection:
    """400: what the request says must not go to a model. The message names kinds of content, never the content."""
    return Rejection(400, "invalid_request_error", "content_filter", message, reason=reason)


def cost_never_fits(message: str) -> Rejection:
    """400: it costs more than a limit holds, so that waiting can't help."""
    return Rejection(400, "invalid_request_error", "request_exceeds_limit", message, reason="cost_never_fits")


def rate_limited(message: str, measure: str, retry_after_s: int) -> Rejection:
    """429: a limit is used up for now. `measure` is what was limited."""
    return Rejection(
        429, measure, "rate_limit_exceeded", message, reason="rate_limit_exceeded", retry_after_s=retry_after_s
    )


def quota_exhausted(message: str, retry_after_s: int) -> Rejection:
    """429: a budget is used up."""
    return Rejection(
        429,
        "insufficient_quota",
        "insufficient_quota",
        message,
        reason="insufficient_quota",
        retry_after_s=retry_after_s,
    )


def overloaded(message: str, reason: str, retry_after_s: int = 1) -> Rejection:
    """503: the request was fine, we could not serve it now."""
    return Rejection(503, "server_error", "overloaded", message, reason=reason, retry_after_s=retry_after_s)


def pool_not_reachable() -> Rejection:
    """503: Envoy has no route to where the model is served, now or before."""
    return overloaded("The model is not reachable yet.", "pool_not_reachable")


def upstream_failed(message: str, status: int = 502) -> Rejection:
    """The model server failed or answered something that is not an answer."""
    return Rejection(status, "server_error", "upstream_error", message, reason="upstream_error")


def internal_error() -> Rejection:
    """500: a bug of ours. The message never carries details."""
    return Rejection(
        500, "server_error", "internal_error", "The gateway failed to process the request.", reason="internal_error"
    )
