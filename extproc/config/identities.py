"""The `identities` section: callers who show no API key, but a certificate or a token that Envoy has verified.

Must not know: how Envoy verifies them, and how a request shows them.
"""

import enum
from collections.abc import Mapping
from typing import Annotated

import pydantic

from extproc.config.section import ExistingFile, Name, Section
from extproc.config.tier import Tier

_TRUST_DOMAIN = r"[a-z0-9][a-z0-9._-]*"
_SEGMENT = r"(\*|[A-Za-z0-9._-]+)"
Team = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
ModelsAllowed = tuple[Annotated[str, pydantic.StringConstraints(pattern=r"^(\*|[A-Za-z0-9]\S*)$")], ...]
_Audience = Annotated[str, pydantic.StringConstraints(pattern=r"^\S{1,512}$")]
_Claim = Annotated[str, pydantic.StringConstraints(pattern=r"^\S{1,64}$")]


class Credentials(enum.StrEnum):
    """What a caller has to show."""

    EITHER = "either"
    BOTH = "both"


class Workload(Section):
    """Callers by the SPIFFE ID in their certificate."""

    spiffe_id: Annotated[
        str, pydantic.StringConstraints(pattern=rf"^spiffe://{_TRUST_DOMAIN}(/{_SEGMENT})+$", max_length=512)
    ]
    """`spiffe://trust-domain/path`; a segment `*` stands for any one segment."""

    team: Team
    """The team it belongs to."""

    tier: Tier = Tier.FREE
    """How much it may use: `free`, `basic`, `pro`, `enterprise`."""

    models: ModelsAllowed = ("*",)
    """The models it may ask for: keys of `models`, or `*` for all."""


class Issuer(Section):
    """Callers by a JSON Web Token (`authorization: Bearer`) that one issuer signed."""

    issuer: Annotated[str, pydantic.StringConstraints(pattern=r"^\S{1,512}$")]
    """The token's `iss`."""

    audiences: Annotated[tuple[_Audience, ...], pydantic.Field(min_length=1)]
    """The token's `aud` has one of these."""

    jwks_file: ExistingFile
    """The issuer's public keys as a JSON Web Key Set. They are copied into Envoy's configuration."""

    team: Team
    """The team of callers whose token names none."""

    team_claim: _Claim | None = None
    """The claim that names the caller's team."""

    tier: Tier = Tier.FREE
    """The tier of callers whose token names none."""

    tier_claim: _Claim | None = None
    """The claim that names the caller's tier."""

    models: ModelsAllowed = ("*",)
    """The models they may ask for: keys of `models`, or `*` for all."""


class Identities(Section):
    """Callers known by other things than API keys."""

    workloads: Mapping[Name, Workload] = {}
    """Workloads of the mesh; the first entry whose `spiffe_id` fits counts."""

    issuers: Mapping[Name, Issuer] = {}
    """Who may issue tokens."""

    require: Credentials = Credentials.EITHER
    """`either`: an API key, a token or a certificate; of several the first in this order counts. `both`: a key or a
    token, and the certificate of a workload of the same team."""
