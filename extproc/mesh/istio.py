"""The same configuration as patches to an Envoy that Istio configures: an EnvoyFilter for a gateway or a sidecar.

What Istio decides itself is left to it: listeners, TLS, tracing, the admin interface, connection limits. A patch can
set and add, but not unset (EnvoyFilter's MERGE is protobuf's), so what must not be there is worked around.

Must not know: what is in a filter, a route or a cluster.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any as Json

from betterproto2 import Message
from envoy_data_plane.envoy.config.listener.v3 import Filter
from envoy_data_plane.google.protobuf import Any

from extproc.config.model import GatewayConfig
from extproc.mesh import wire
from extproc.mesh.bootstrap import upstream_clusters
from extproc.mesh.listener import connection_manager, filters_before_router, router
from extproc.mesh.processor import processor_cluster
from extproc.mesh.render import plain
from extproc.mesh.routes import routes
from extproc.mesh.sanitise import client_headers

_MANAGER = "envoy.filters.network.http_connection_manager"
_ROUTER = "envoy.filters.http.router"
_INBOUND_ROUTE = "default"
"""Istio's name of the one route of an inbound listener."""


class Place(enum.StrEnum):
    """Whose Envoy is patched: a gateway's of its own, or the sidecar of a model server's pod."""

    GATEWAY = "istio-gateway"
    SIDECAR = "istio-sidecar"


@dataclass(frozen=True)
class Target:
    """Which Envoys get the patches. `port` is the gateway's server port or the model server's, `host` the clients'
    host name for a gateway, `labels` those of the pods."""

    place: Place
    port: int
    host: str = ""
    name: str = "extproc"
    namespace: str = "default"
    labels: dict[str, str] = field(default_factory=dict)


def envoy_filter(config: GatewayConfig, target: Target) -> dict[str, Json]:
    """A `networking.istio.io/v1alpha3` EnvoyFilter."""
    spec: dict[str, Json] = {"configPatches": list(_patches(config, target))}
    if target.labels:
        spec = {"workloadSelector": {"labels": dict(target.labels)}, **spec}
    metadata = {"name": target.name, "namespace": target.namespace}
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": metadata,
        "spec": spec,
    }


def _patches(config: GatewayConfig, target: Target) -> Iterator[dict[str, Json]]:
    context = {"context": "GATEWAY" if target.place is Place.GATEWAY else "SIDECAR_INBOUND"}
    for cluster in (processor_cluster(config), *upstream_clusters(config)):
        yield _patch("CLUSTER", context, "ADD", plain(cluster))
    manager = {**context, "listener": _listener(target, None)}
    yield _patch("NETWORK_FILTER", manager, "MERGE", plain(_manager(config, target.place)))
    before_router = {**context, "listener": _listener(target, _ROUTER)}
    yield _patch("HTTP_FILTER", before_router, "MERGE", plain(router()))
    for http_filter in filters_before_router(config):
        yield _patch("HTTP_FILTER", before_router, "INSERT_BEFORE", plain(http_filter))
    host = plain(routes(config).virtual_hosts[0])
    if target.place is Place.GATEWAY:
        # Never "*": where a gateway has no other host, Istio gives it one of that domain, and Envoy refuses a second.
        domains = [target.host, f"{target.host}:*"]
        matched = {**context, "routeConfiguration": {"portNumber": target.port}}
        yield _patch("VIRTUAL_HOST", matched, "ADD", {**host, "domains": domains})
        return
    # The last of ours matches everything, so that Istio's own, which would pass what is not stamped, is never reached.
    vhost = {"name": f"inbound|http|{target.port}", "route": {"name": _INBOUND_ROUTE}}
    for route in host["routes"]:
        matched = {**context, "routeConfiguration": {"portNumber": target.port, "vhost": vhost}}
        yield _patch("HTTP_ROUTE", matched, "INSERT_BEFORE", route)


def _patch(apply_to: str, match: dict[str, Json], operation: str, value: dict[str, Json]) -> dict[str, Json]:
    return {"applyTo": apply_to, "match": match, "patch": {"operation": operation, "value": value}}


def _listener(target: Target, sub_filter: str | None) -> dict[str, Json]:
    manager: dict[str, Json] = {"name": _MANAGER}
    if sub_filter is not None:
        manager["subFilter"] = {"name": sub_filter}
    chain: dict[str, Json] = {"filter": manager}
    if target.place is Place.GATEWAY:
        return {"portNumber": target.port, "filterChain": chain}
    # All inbound ports share one listener, whose chains are told apart by port.
    return {"filterChain": {"destinationPort": target.port, **chain}}


def _manager(config: GatewayConfig, place: Place) -> Message:
    manager = connection_manager(config)
    manager.stat_prefix, manager.http_filters, manager.tracing = "", [], None
    # Istio may tell Envoy to keep a client's request id, which a patch can't take back. Usage is recorded once for
    # each, so what comes is removed before Envoy makes its own.
    manager.early_header_mutation_extensions = [client_headers(wire.mutate_remove("x-request-id"))]
    if place is Place.SIDECAR:
        # Before a sidecar there is a gateway, and Istio knows whether to believe it.
        manager.use_remote_address, manager.xff_num_trusted_hops = None, 0
    return Filter(name=_MANAGER, typed_config=Any.pack(manager))
