"""What a request shows of its caller, but for API keys: a workload's certificate, the claims of a token.

Both have been verified by Envoy: it replaces the header `x-forwarded-client-cert` by what it knows of the connection's
certificate, or removes it, and only its own filter can write claims. Must not know: API keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from extproc.config.identities import Identities, Issuer, Workload
from extproc.config.tier import Tier
from extproc.principal import Principal

CERTIFICATE_HEADER = "x-forwarded-client-cert"
_LIMIT_CHARS = 16_384
# One `Key=value` of an element; Envoy quotes values that may hold its separators.
_PAIR = re.compile(r'(?P<key>[A-Za-z]+)=(?:"(?:[^"\\]|\\.)*"|(?P<plain>[^",;]*))(?:;|\Z)')
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)+")
_SPIFFE_ID_CHARS = 512
# A JSON object in base64url begins like that (RFC 7519, section 3).
_TOKEN = re.compile(r"eyJ[\w-]*\.[\w-]*\.[\w-]*")
_SUBJECT = re.compile(r"[A-Za-z0-9@._:|/+=-]{1,255}")
_TEAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class KnownCallers:
    """Principals of one configuration's identities."""

    def __init__(self, identities: Identities) -> None:
        self._workloads = [(_pattern(workload), workload) for workload in identities.workloads.values()]
        self._issuers = identities.issuers

    def workload(self, headers: Mapping[str, str]) -> Principal | None:
        """Whose certificate the connection has; None: nobody's who is known here."""
        spiffe_id = spiffe_id_of(headers.get(CERTIFICATE_HEADER, "")) if self._workloads else None
        if spiffe_id is None:
            return None
        for pattern, known in self._workloads:
            if pattern.fullmatch(spiffe_id):
                return Principal(spiffe_id, known.team, known.tier, frozenset(known.models))
        return None

    def looks_like_a_token(self, presented: str) -> bool:
        """It is not worth looking for among the keys, which may take Redis."""
        return bool(self._issuers) and _TOKEN.fullmatch(presented) is not None

    def bearer(self, claims: Mapping[str, Mapping[str, str]]) -> Principal | None:
        """Whose token it is that says this; None: it says nothing that can be used here."""
        for name, said in claims.items():
            issuer = self._issuers.get(name)
            if issuer is not None:
                return _principal(name, issuer, said)
        return None


def spiffe_id_of(header: str) -> str | None:
    """The one SPIFFE ID in the one certificate that the header tells of; None for anything else.

    A second element would be an earlier proxy's, or a forged one; an X.509-SVID has exactly one URI (SPIFFE's
    X.509-SVID, section 2).
    """
    if len(header) > _LIMIT_CHARS:
        return None
    uris = [value for key, value in _pairs(header) if key == "uri"]
    if len(uris) != 1 or uris[0] is None or len(uris[0]) > _SPIFFE_ID_CHARS:
        return None
    return uris[0] if _SPIFFE_ID.fullmatch(uris[0]) else None


def _pairs(header: str) -> list[tuple[str, str | None]]:
    """Keys in lower case with their values, None where quoted. Nothing at all unless the header is one element."""
    pairs: list[tuple[str, str | None]] = []
    at = 0
    while at < len(header):
        pair = _PAIR.match(header, at)
        if pair is None:
            return []
        pairs.append((pair["key"].lower(), pair["plain"]))
        at = pair.end()
    return pairs


def _pattern(workload: Workload) -> re.Pattern[str]:
    segments = workload.spiffe_id.split("/")
    return re.compile("/".join(r"[^/]+" if segment == "*" else re.escape(segment) for segment in segments))


def _principal(name: str, issuer: Issuer, said: Mapping[str, str]) -> Principal | None:
    subject = said.get("sub", "")
    team = issuer.team if issuer.team_claim is None else said.get(issuer.team_claim, issuer.team)
    tier = issuer.tier if issuer.tier_claim is None else said.get(issuer.tier_claim, issuer.tier)
    if not (_SUBJECT.fullmatch(subject) and _TEAM.fullmatch(team) and tier in set(Tier)):
        return None
    return Principal(f"token:{name}:{subject}", team, str(tier), frozenset(issuer.models))
