"""The listener and its HTTP connection manager: everything between a client's bytes and the routes.

Must not know: where requests go.
"""

from envoy_data_plane.envoy.config.core.v3 import (
    CidrRange,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
    TrafficDirection,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3 import UpstreamCodec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
    HttpConnectionManagerInternalAddressConfig,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpConnectionManagerSetCurrentClientCertDetails,
    HttpFilter,
    Rds,
)
from envoy_data_plane.google.protobuf import Any

from extproc.config.model import Gateway, GatewayConfig
from extproc.mesh import names, wire
from extproc.mesh.access_log import access_log, note_path
from extproc.mesh.clusters import BUFFER_LIMIT_BYTES
from extproc.mesh.health import readiness
from extproc.mesh.local_replies import local_replies
from extproc.mesh.processor import processor_filter
from extproc.mesh.routes import routes
from extproc.mesh.sanitise import client_headers, upstream_headers
from extproc.mesh.tls import towards_clients
from extproc.mesh.token_stats import token_stats
from extproc.mesh.tokens import token_filter
from extproc.mesh.tracing import tracing

_MAX_HEADERS = 100
MAX_HEADERS_KB = 60
_STREAM_WINDOW_BYTES = 256 * 1024
_CONNECTION_WINDOW_BYTES = 1024 * 1024


def listener(config: GatewayConfig, rds: Rds | None) -> Listener:
    """The listener with its routes in it, or, with `rds`, got from there."""
    manager = connection_manager(config)
    # Here only: the Envoy of a mesh may be older than its stats access logger is.
    manager.access_log.append(token_stats())
    if rds is None:
        manager.route_config = routes(config)
    else:
        manager.rds = rds
    chain = FilterChain(
        filters=[Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager))],
        transport_socket=towards_clients(config.gateway.tls) if config.gateway.tls else None,
    )
    return Listener(
        name=names.LISTENER,
        address=wire.address(config.gateway.listen),
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=BUFFER_LIMIT_BYTES,
        traffic_direction=TrafficDirection.INBOUND,
    )


def filters_before_router(config: GatewayConfig) -> list[HttpFilter]:
    return [note_path(), readiness(), *token_filter(config.identities), processor_filter(config)]


def connection_manager(config: GatewayConfig) -> HttpConnectionManager:
    """Everything but the routes."""
    gateway, traces = config.gateway, config.telemetry.tracing
    return HttpConnectionManager(
        stat_prefix="gateway",
        http_filters=[*filters_before_router(config), router()],
        early_header_mutation_extensions=[client_headers()],
        access_log=[access_log(gateway.access_log)] if gateway.access_log else [],
        local_reply_config=local_replies(),
        tracing=tracing(traces) if traces else None,
        # Only what this Envoy has verified itself: without a certificate the header is removed.
        forward_client_cert_details=HttpConnectionManagerForwardClientCertDetails.SANITIZE_SET,
        set_current_client_cert_details=HttpConnectionManagerSetCurrentClientCertDetails(uri=True),
        # The client's address is the connection's, or what a trusted proxy says it is.
        use_remote_address=True,
        xff_num_trusted_hops=gateway.trusted_hops,
        internal_address_config=_nobody_is_internal(),
        # Always Envoy's own: usage is recorded once for each, so a client may not choose it.
        generate_request_id=True,
        preserve_external_request_id=False,
        always_set_request_id_in_response=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=HttpConnectionManagerPathWithEscapedSlashesAction.REJECT_REQUEST,
        server_name="extproc",
        max_request_headers_kb=MAX_HEADERS_KB,
        stream_idle_timeout=wire.seconds(gateway.stream_idle_timeout_s),
        request_timeout=wire.seconds(gateway.request_timeout_s),
        request_headers_timeout=wire.seconds(gateway.request_headers_timeout_s),
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=wire.seconds(gateway.connection_idle_timeout_s),
            max_headers_count=_MAX_HEADERS,
            headers_with_underscores_action=HttpProtocolOptionsHeadersWithUnderscoresAction.DROP_HEADER,
        ),
        # A client's trailers mean nothing here. With a body that the service has held back and then replaced, they make
        # the router send it twice where it keeps it for retries (Envoy 1.40), so none are read.
        http_protocol_options=Http1ProtocolOptions(enable_trailers=False),
        http2_protocol_options=_http2(gateway),
    )


def _nobody_is_internal() -> HttpConnectionManagerInternalAddressConfig:
    """Without this every private address is, which lets a client choose request ids and set x-envoy-* headers.
    An empty list would mean the default, so the one address in it is nobody's."""
    nobody = CidrRange(address_prefix="255.255.255.255", prefix_len=32)
    return HttpConnectionManagerInternalAddressConfig(cidr_ranges=[nobody])


def _http2(gateway: Gateway) -> Http2ProtocolOptions:
    return Http2ProtocolOptions(
        max_concurrent_streams=gateway.max_concurrent_streams,
        initial_stream_window_size=_STREAM_WINDOW_BYTES,
        initial_connection_window_size=_CONNECTION_WINDOW_BYTES,
        # A malformed request ends its stream, not the connection and everyone else's streams on it.
        override_stream_error_on_invalid_http_message=True,
    )


def router() -> HttpFilter:
    """To the pools, and back without what only the service may say."""
    codec = HttpFilter(name="envoy.filters.http.upstream_codec", typed_config=Any.pack(UpstreamCodec()))
    router = Router(
        # Else answers and upstream requests would carry timings and attempt counts as x-envoy-* headers.
        suppress_envoy_headers=True,
        # Here rather than with each cluster, where the clusters that stand for others would need them again.
        upstream_http_filters=[upstream_headers(), codec],
    )
    return HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(router))
