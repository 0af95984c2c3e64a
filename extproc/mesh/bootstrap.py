"""The whole Envoy configuration: one static bootstrap, or a small one that gets the rest from files.

Must not know: what is in a listener, a route or a cluster.
"""

from collections.abc import Iterator

from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapStaticResources,
    LayeredRuntime,
    RuntimeLayer,
    RuntimeLayerAdminLayer,
)
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.overload.v3 import OverloadManager, ResourceMonitor
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import Rds
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections.v3 import (
    DownstreamConnectionsConfig,
)
from envoy_data_plane.google.protobuf import Any

from extproc.config.model import GatewayConfig
from extproc.mesh import wire
from extproc.mesh.clusters import mirror_cluster, pool_clusters
from extproc.mesh.fallback import fallback_listener
from extproc.mesh.listener import listener
from extproc.mesh.processor import processor_cluster
from extproc.mesh.render import plain, to_yaml
from extproc.mesh.tracing import collector_cluster


def bootstrap(config: GatewayConfig) -> Bootstrap:
    """A complete configuration that never changes while Envoy runs."""
    complete = base(config)
    complete.static_resources = BootstrapStaticResources(
        listeners=list(listeners(config, None)), clusters=list(clusters(config))
    )
    return complete


def bootstrap_yaml(config: GatewayConfig) -> str:
    """`bootstrap` as Envoy reads it; the same text for the same configuration."""
    return to_yaml(plain(bootstrap(config)))


def base(config: GatewayConfig) -> Bootstrap:
    """What can't change while Envoy runs: its identity, its admin interface, its limits."""
    connections = DownstreamConnectionsConfig(max_active_downstream_connections=config.gateway.max_connections)
    return Bootstrap(
        node=Node(id="extproc-gateway", cluster="extproc-gateway"),
        admin=Admin(address=wire.address(config.gateway.admin)),
        # Lets weights be changed through the admin interface.
        layered_runtime=LayeredRuntime(layers=[RuntimeLayer(name="admin", admin_layer=RuntimeLayerAdminLayer())]),
        overload_manager=OverloadManager(
            resource_monitors=[
                ResourceMonitor(
                    name="envoy.resource_monitors.global_downstream_max_connections",
                    typed_config=Any.pack(connections),
                )
            ]
        ),
    )


def listeners(config: GatewayConfig, rds: Rds | None) -> Iterator[Listener]:
    """With their routes in them, or, with `rds`, got from there."""
    yield listener(config, rds)
    if config.fallback_address is not None:
        yield fallback_listener(config, config.fallback_address, rds)


def clusters(config: GatewayConfig) -> Iterator[Cluster]:
    yield processor_cluster(config)
    if config.telemetry.tracing is not None:
        yield collector_cluster(config.telemetry.tracing)
    yield from upstream_clusters(config)


def upstream_clusters(config: GatewayConfig) -> Iterator[Cluster]:
    """All that the routes name."""
    for name, pool in config.pools.items():
        yield from pool_clusters(name, pool)
    for name, experiment in config.experiments.items():
        if experiment.mirror is not None:
            yield mirror_cluster(experiment.mirror.pool, config.pools[experiment.mirror.pool], name)
