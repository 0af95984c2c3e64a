"""The listener at which the service asks for another pool, when the one that it stamped has failed a request.

Requests here were let through, translated and stamped by the service already, so nothing stands before the routes:
no ext_proc, no access log (the request has its line). Where the service chooses endpoints, answers say whose they are.
Only the service may reach it, which is why it is a Unix socket or a port of loopback. Retries, balancing, ejection and
circuit breakers are the pool's, as for any other request.

Must not know: when the service comes here.
"""

from collections.abc import Iterator

from envoy_data_plane.envoy.config.core.v3 import Address, Pipe, TrafficDirection
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutation, Mutations
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
)
from envoy_data_plane.google.protobuf import Any

from extproc.config.address import TcpAddress, UnixAddress
from extproc.config.model import GatewayConfig
from extproc.mesh import names, wire
from extproc.mesh.clusters import BUFFER_LIMIT_BYTES
from extproc.mesh.listener import MAX_HEADERS_KB, router
from extproc.mesh.local_replies import local_replies
from extproc.mesh.routes import routes
from extproc.mesh.tracing import tracing

_OWNER_AND_GROUP = 0o660


def fallback_listener(config: GatewayConfig, address: TcpAddress | UnixAddress, rds: Rds | None) -> Listener:
    """With the same routes as the clients' listener: in it, or, with `rds`, got from there."""
    manager = _connection_manager(config)
    if rds is None:
        manager.route_config = routes(config)
    else:
        manager.rds = rds
    chain = FilterChain(
        filters=[Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager))]
    )
    return Listener(
        name=names.FALLBACK_LISTENER,
        address=_private(address),
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=BUFFER_LIMIT_BYTES,
        traffic_direction=TrafficDirection.OUTBOUND,
    )


def _connection_manager(config: GatewayConfig) -> HttpConnectionManager:
    traces = config.telemetry.tracing
    return HttpConnectionManager(
        stat_prefix="fallback",
        http_filters=[*_saying_who_answered(config), router()],
        local_reply_config=local_replies(),
        tracing=tracing(traces) if traces else None,
        # The request's own: it is the same request.
        generate_request_id=False,
        preserve_external_request_id=True,
        skip_xff_append=True,
        max_request_headers_kb=2 * MAX_HEADERS_KB,
        stream_idle_timeout=wire.seconds(config.gateway.stream_idle_timeout_s),
    )


def _saying_who_answered(config: GatewayConfig) -> Iterator[HttpFilter]:
    if any(pool.balancing.is_ours for pool in config.pools.values()):
        mutations = [
            wire.mutate_set(names.ANSWERED_BY_HEADER, "%UPSTREAM_REMOTE_ADDRESS%"),
            wire.mutate_set(names.DETAILS_HEADER, "%RESPONSE_CODE_DETAILS%"),
        ]
        said = HeaderMutation(mutations=Mutations(response_mutations=mutations))
        yield HttpFilter(name="envoy.filters.http.header_mutation", typed_config=Any.pack(said))


def _private(address: TcpAddress | UnixAddress) -> Address:
    if isinstance(address, UnixAddress):
        return Address(pipe=Pipe(path=address.path, mode=_OWNER_AND_GROUP))
    return wire.address(address)
