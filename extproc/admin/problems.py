"""How the admin interface says no: one shape for every error, the one that the gateway's clients know.

Must not know: aiohttp.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

_LARGEST_CLIENT_ERROR = 499
_PLACE = re.compile(r" - at `\$\.?(?P<param>[^`]*)`$")


class Problem(Exception):
    """Why a request is not answered. `code` is from a closed set; `param` names what was wrong in the request."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param

    @property
    def body(self) -> Error:
        kind = "invalid_request_error" if self.status <= _LARGEST_CLIENT_ERROR else "api_error"
        return Error(ErrorDetail(message=self.message, type=kind, param=self.param, code=self.code))


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """What was wrong. `code` says which error it is, for programs; `message` says it to people."""

    message: str
    type: str
    param: str | None
    code: str


class Error(Struct, frozen=True):
    """The body of every answer that is not a success."""

    error: ErrorDetail


def malformed(error: msgspec.DecodeError) -> Problem:
    """400: the request is not as it is documented; msgspec's message names the place, never a value."""
    message = str(error)
    place = _PLACE.search(message)
    if place is None:
        return Problem(400, "invalid_request", message)
    return Problem(400, "invalid_request", message[: place.start()], place["param"] or None)
