"""JSON Web Tokens, verified by Envoy's own filter; what they say goes to the service as metadata.

Must not know: what becomes of a caller.
"""

from collections.abc import Iterator

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.config.route.v3 import RouteMatch
from envoy_data_plane.envoy.extensions.filters.http.jwt_authn.v3 import (
    JwtAuthentication,
    JwtProvider,
    JwtRequirement,
    JwtRequirementOrList,
    RequirementRule,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.google.protobuf import Any, Empty

from extproc.config.identities import Identities, Issuer

NAMESPACE = "envoy.filters.http.jwt_authn"
_FILTER = NAMESPACE


def token_filter(identities: Identities) -> Iterator[HttpFilter]:
    """None where no issuer is configured. A token that does not verify is left where it is: whoever reads it there
    takes it for an API key, which it is not either, and refuses it in the words of the client's API."""
    if not identities.issuers:
        return
    wanted = [JwtRequirement(provider_name=name) for name in identities.issuers]
    wanted.append(JwtRequirement(allow_missing_or_failed=Empty()))
    rule = RequirementRule(
        match=RouteMatch(prefix="/"), requires=JwtRequirement(requires_any=JwtRequirementOrList(requirements=wanted))
    )
    providers = {name: _provider(name, issuer) for name, issuer in identities.issuers.items()}
    yield HttpFilter(name=_FILTER, typed_config=Any.pack(JwtAuthentication(providers=providers, rules=[rule])))


def _provider(name: str, issuer: Issuer) -> JwtProvider:
    return JwtProvider(
        issuer=issuer.issuer,
        audiences=list(issuer.audiences),
        local_jwks=DataSource(inline_string=issuer.jwks_file.read_text()),
        require_expiration=True,
        payload_in_metadata=name,
    )
