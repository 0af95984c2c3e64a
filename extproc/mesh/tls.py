"""TLS contexts, towards clients and towards model servers.

Must not know: who is behind a certificate.
"""

from envoy_data_plane.envoy.config.core.v3 import DataSource, TransportSocket
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    DownstreamTlsContext,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

from extproc.config.tls import ClientCertificates, ServerTls, UpstreamTls

_NAME = "envoy.transport_sockets.tls"


def towards_clients(tls: ServerTls) -> TransportSocket:
    """A client's certificate that does not verify ends the connection, also where none is required."""
    common = _common(tls.certificate_file, tls.key_file)
    common.alpn_protocols = ["h2", "http/1.1"]
    if tls.client_ca_file is not None:
        common.validation_context = CertificateValidationContext(trusted_ca=_file(tls.client_ca_file))
    context = DownstreamTlsContext(
        common_tls_context=common,
        require_client_certificate=tls.client_certificates is ClientCertificates.REQUIRED,
    )
    return TransportSocket(name=_NAME, typed_config=Any.pack(context))


def towards_servers(tls: UpstreamTls, *, http2: bool) -> TransportSocket:
    common = _common(tls.certificate_file, tls.key_file)
    common.alpn_protocols = ["h2"] if http2 else ["http/1.1"]
    validation = CertificateValidationContext(trusted_ca=_file(tls.ca_file))
    context = UpstreamTlsContext(common_tls_context=common)
    if tls.spiffe_id is not None:
        validation.match_typed_subject_alt_names = [_exactly(SubjectAltNameMatcherSanType.URI, tls.spiffe_id)]
    elif tls.server_name is not None:
        validation.match_typed_subject_alt_names = [_exactly(SubjectAltNameMatcherSanType.DNS, tls.server_name)]
    else:
        context.auto_sni_san_validation = True
    if tls.server_name is not None:
        context.sni = tls.server_name
    else:
        context.auto_host_sni = True
    common.validation_context = validation
    return TransportSocket(name=_NAME, typed_config=Any.pack(context))


def _common(certificate_file: str | None, key_file: str | None) -> CommonTlsContext:
    common = CommonTlsContext(tls_params=TlsParameters(tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2))
    if certificate_file is not None and key_file is not None:
        common.tls_certificates = [
            TlsCertificate(certificate_chain=_file(certificate_file), private_key=_file(key_file))
        ]
    return common


def _exactly(kind: SubjectAltNameMatcherSanType, name: str) -> SubjectAltNameMatcher:
    return SubjectAltNameMatcher(san_type=kind, matcher=StringMatcher(exact=name))


def _file(path: str) -> DataSource:
    return DataSource(filename=path)
