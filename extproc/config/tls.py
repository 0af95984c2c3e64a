"""TLS as Envoy speaks it, with clients and with model servers.

The files are Envoy's to read, in its own container: the service neither opens nor needs them, so that private keys
need not be where prompts are. Must not know: how any of it is said to Envoy.
"""

import enum
from typing import Annotated

import pydantic

from extproc.config.section import Section

EnvoysFile = Annotated[str, pydantic.StringConstraints(pattern=r"^/\S+$")]
_SpiffeId = Annotated[str, pydantic.StringConstraints(pattern=r"^spiffe://[a-z0-9][a-z0-9._-]*(/[A-Za-z0-9._-]+)*$")]


class ClientCertificates(enum.StrEnum):
    """Whether clients show a certificate."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


class ServerTls(Section):
    """TLS towards clients."""

    certificate_file: EnvoysFile
    """The gateway's certificate chain, PEM; the path is absolute, and as Envoy sees it."""

    key_file: EnvoysFile
    """Its private key, PEM."""

    client_ca_file: EnvoysFile | None = None
    """Certificates of clients are signed by one of these authorities, PEM."""

    client_certificates: ClientCertificates = ClientCertificates.NONE
    """`none`: not asked for; `optional`: verified where there is one; `required`: no connection without."""

    @pydantic.model_validator(mode="after")
    def _verifiable(self) -> "ServerTls":
        if (self.client_ca_file is None) != (self.client_certificates is ClientCertificates.NONE):
            raise ValueError("client_ca_file and client_certificates belong together")
        return self


class UpstreamTls(Section):
    """TLS towards model servers."""

    ca_file: EnvoysFile
    """Their certificates are signed by one of these authorities, PEM; the path is absolute, and as Envoy sees it."""

    server_name: Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")] | None = None
    """The name in their certificates; by default that of each endpoint."""

    spiffe_id: _SpiffeId | None = None
    """The SPIFFE ID in their certificates, instead of a name."""

    certificate_file: EnvoysFile | None = None
    """The certificate that the gateway shows them, PEM."""

    key_file: EnvoysFile | None = None
    """Its private key, PEM."""

    @pydantic.model_validator(mode="after")
    def _in_pairs(self) -> "UpstreamTls":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together")
        return self
