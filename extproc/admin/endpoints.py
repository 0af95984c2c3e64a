"""One endpoint of the admin API as a value, and how a request becomes its typed input.

What an endpoint takes is one msgspec Struct: fields named in the path come from the path, the others from the query, or
from the JSON body of a POST. The OpenAPI document is made from the same values (`openapi.py`), so it can't differ from
what is checked here. Must not know: what any endpoint does.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from extproc.admin.problems import Problem, malformed

BODY_LIMIT_BYTES = 16 * 1024
QUERY_LIMIT_CHARS = 4096

_JSON = re.compile(r"application/json(\s*;\s*charset=\"?utf-8\"?)?", re.IGNORECASE)


class Input(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an endpoint takes; nothing, if it has no fields."""


I = TypeVar("I", bound=Input)  # noqa: E741


class Call(Struct, Generic[I], frozen=True):
    """One request that was let in and understood. `actor` is who asks, for the audit log."""

    input: I
    actor: str


class Endpoint(Struct, frozen=True, kw_only=True):
    """`refusals` are the statuses, beyond those of every endpoint, that it may answer with, each with when."""

    method: str
    path: str
    name: str
    summary: str
    takes: type[Input]
    gives: type[Any]
    handle: Callable[[Call[Any]], Awaitable[Any]]
    status: int = 200
    refusals: Mapping[int, str] = {}

    @property
    def in_path(self) -> frozenset[str]:
        return frozenset(re.findall(r"\{(\w+)\}", self.path))

    @property
    def has_body(self) -> bool:
        return self.method == "POST"


def read_input(
    endpoint: Endpoint, path: Mapping[str, str], query: Sequence[tuple[str, str]], content_type: str, body: bytes
) -> Input:
    """Raises Problem for what is not as documented."""
    given: dict[str, Any] = dict(path)
    if endpoint.has_body:
        if query:
            raise Problem(400, "invalid_request", "this takes no query parameters", query[0][0])
        if _JSON.fullmatch(content_type) is None:
            raise Problem(415, "unsupported_media_type", "send application/json")
        said = _object(body)
        if given.keys() & said.keys():
            raise Problem(400, "invalid_request", "part of the path", min(given.keys() & said.keys()))
        given |= said
        return _converted(endpoint.takes, given, strict=True)
    if body:
        raise Problem(400, "invalid_request", "this takes no body")
    for name, value in query:
        if name in given:
            raise Problem(400, "invalid_request", "given more than once, or part of the path", name)
        given[name] = value
    return _converted(endpoint.takes, given, strict=False)


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem(400, "invalid_request", f"the body is no JSON object: {error}") from None


def _converted(kind: type[I], given: Mapping[str, Any], *, strict: bool) -> I:
    try:
        return msgspec.convert(given, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise malformed(error) from None
