"""The shapes that Envoy's messages are full of: addresses, protocols, extensions, durations, header options.

Must not know: what any of them is for.
"""

import datetime
from collections.abc import Iterable

from betterproto2 import Message
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation, HeaderMutationRemoveOnMatch
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    Http2ProtocolOptions,
    Pipe,
    SocketAddress,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any
from envoy_data_plane.xds.core.v3 import TypedExtensionConfig as XdsExtension

from extproc.config.address import TcpAddress, UnixAddress

_OVERWRITE = HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD


def address(value: TcpAddress | UnixAddress) -> Address:
    if isinstance(value, UnixAddress):
        return Address(pipe=Pipe(path=value.path))
    return Address(socket_address=SocketAddress(address=value.host, port_value=value.port))


def seconds(value: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=value)


def extension(name: str, config: Message) -> TypedExtensionConfig:
    return TypedExtensionConfig(name=name, typed_config=Any.pack(config))


def xds_extension(name: str, config: Message) -> XdsExtension:
    """An extension as the matching API, which is not Envoy's alone, has them."""
    return XdsExtension(name=name, typed_config=Any.pack(config))


def load_assignment(cluster: str, addresses: Iterable[TcpAddress | UnixAddress]) -> ClusterLoadAssignment:
    """Every address alike."""
    endpoints = [LbEndpoint(endpoint=Endpoint(address=address(value))) for value in addresses]
    return ClusterLoadAssignment(cluster_name=cluster, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)])


def http_options(options: HttpProtocolOptions) -> dict[str, Any]:
    """For a cluster's `typed_extension_protocol_options`."""
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": Any.pack(options)}


def http2_options(options: Http2ProtocolOptions) -> dict[str, Any]:
    """The same, for a cluster that speaks nothing but HTTP/2."""
    explicit = HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=options)
    return http_options(HttpProtocolOptions(explicit_http_config=explicit))


def grpc_service(cluster: str) -> GrpcService:
    return GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=cluster))


def set_header(name: str, value: str) -> HeaderValueOption:
    """Replaces the header; where `value` comes out empty the header is left as it is."""
    return HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=_OVERWRITE)


def mutate_set(name: str, value: str) -> HeaderMutation:
    return HeaderMutation(append=set_header(name, value))


def mutate_remove(name: str) -> HeaderMutation:
    return HeaderMutation(remove=name)


def mutate_remove_prefix(prefix: str) -> HeaderMutation:
    return HeaderMutation(
        remove_on_match=HeaderMutationRemoveOnMatch(key_matcher=StringMatcher(prefix=prefix, ignore_case=True))
    )
