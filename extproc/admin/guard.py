"""Who may use the admin interface: a decision about one request, made before anything else is.

Fails closed: without a token, on an address that others can reach, only metrics and health are answered. On loopback
without a token the threat is a web page in the operator's own browser, which can send requests to this machine too: a
foreign name for it (DNS rebinding) and a foreign origin are refused. Must not know: what is answered.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from extproc.admin.problems import Problem

OPEN_PATHS = frozenset({"/metrics", "/healthz", "/readyz"})
"""What monitoring asks for; it says nothing of any caller."""

PAGE_PATHS = frozenset({"/", "/live.css", "/live.js", "/charts.js", "/panels.js", "/icon.svg"})
"""The live view without any data: it asks for the token itself, where there is one."""

_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Guard:
    """What holds now. `loopback`: only this machine can connect. `token`: what has to be shown, if anything."""

    loopback: bool
    token: bytes | None

    def refusal(self, path: str, headers: Mapping[str, str]) -> Problem | None:
        """Why this request may not pass; None if it may."""
        if path in OPEN_PATHS:
            return None
        if self.token is not None:
            return None if path in PAGE_PATHS else self._foreign_origin(headers) or self._wrong_token(headers)
        if not self.loopback:
            return Problem(403, "admin_token_required", "set service.admin_token to use this from other machines")
        if not _is_this_machine(headers.get("host", "")):
            return Problem(403, "foreign_host", "without a token this machine answers to localhost only")
        return None if path in PAGE_PATHS else self._foreign_origin(headers)

    def _wrong_token(self, headers: Mapping[str, str]) -> Problem | None:
        assert self.token is not None
        given = headers.get("authorization", "")
        shown = given[len(_SCHEME) :].strip() if given[: len(_SCHEME)].lower() == _SCHEME else ""
        if hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self.token):
            return None
        return Problem(401, "invalid_admin_token", "send the admin token: Authorization: Bearer TOKEN")

    def _foreign_origin(self, headers: Mapping[str, str]) -> Problem | None:
        """Browsers say where a request comes from; nothing else does."""
        foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            foreign = True
        return Problem(403, "foreign_origin", "another site's page may not ask this") if foreign else None


def _is_this_machine(host: str) -> bool:
    """`host` as a Host header has it: a name or an address, perhaps with a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in ("localhost", "localhost.") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
