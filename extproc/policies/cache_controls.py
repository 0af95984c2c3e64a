"""What a client asks of the caches, in headers: `cache-control` (RFC 9111, 5.2.1), and two of our own.

Must not know: what is done about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from extproc.dialects.interface import InvalidRequest
from extproc.rejection import invalid_request

NAMESPACE = "x-extproc-cache-namespace"
TTL = "x-extproc-cache-ttl"

_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECONDS = re.compile(r"[0-9]{1,9}")


class Controls(Struct, frozen=True):
    """`no_store`: no cache has to do with it. `refresh`: none that is kept, but keep the new one. `max_age_s`: none
    older."""

    no_store: bool = False
    refresh: bool = False
    max_age_s: float | None = None
    namespace: str = ""
    ttl_s: float | None = None


_NONE = Controls()


def controls(headers: Mapping[str, str]) -> Controls:
    """Raises InvalidRequest for a header of ours that means nothing."""
    said, namespace, ttl = headers.get("cache-control", ""), headers.get(NAMESPACE, ""), headers.get(TTL, "")
    if not said and not namespace and not ttl:
        return _NONE
    if namespace and not _NAMESPACE.fullmatch(namespace):
        raise _invalid(NAMESPACE, "up to 64 letters, digits, dots, dashes and underscores")
    if ttl and not (_SECONDS.fullmatch(ttl) and int(ttl) > 0):
        raise _invalid(TTL, "a number of seconds, 1 or more")
    directives = dict(_directive(one) for one in said.lower().split(","))
    max_age_s = _seconds(directives["max-age"]) if "max-age" in directives else None
    return Controls(
        "no-store" in directives, "no-cache" in directives, max_age_s, namespace, float(ttl) if ttl else None
    )


def _directive(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip().strip('"')


def _seconds(text: str) -> float:
    """An age that can't be read is one that nothing kept can have."""
    return float(text) if _SECONDS.fullmatch(text) else 0.0


def _invalid(name: str, wanted: str) -> InvalidRequest:
    return InvalidRequest(invalid_request(f"Invalid header '{name}': it takes {wanted}.", name))
