"""The shapes that Envoy's messages are full of: addresses, extensions, durations, header options.

Must not know: what any of them is for.
"""

import datetime

from betterproto2 import Message
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation, HeaderMutationRemoveOnMatch
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    Pipe,
    SocketAddress,
    TypedExtensionConfig,
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
