"""Pools as Envoy clusters: one for each of a pool's clusters, and where there are several one more for each,
which prefers it and falls back to the others.

The split by weight happens in the route. It names the preferring clusters, so that a request whose cluster is
down, or has just failed it, still goes to another one of the same pool.

Must not know: routes, and what the servers serve.
"""

from collections.abc import Iterator
from urllib.parse import quote

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    CircuitBreakersThresholdsRetryBudget,
    Cluster,
    ClusterCommonLbConfig,
    ClusterCustomClusterType,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    ClusterLbPolicy,
    OutlierDetection,
    UpstreamConnectionOptions,
)
from envoy_data_plane.envoy.config.core.v3 import (
    HealthCheck,
    HealthCheckHttpHealthCheck,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    Metadata,
    TcpKeepalive,
)
from envoy_data_plane.envoy.config.core.v3 import HttpProtocolOptions as CommonProtocolOptions
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    EndpointHealthCheckConfig,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.clusters.aggregate.v3 import ClusterConfig as AggregateConfig
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import CodecClientType, Percent
from envoy_data_plane.google.protobuf import Any, Struct, Value

from extproc.config import pools
from extproc.config.pools import Balancing, DialectName, Pool
from extproc.mesh import names, wire

# Envoy's default, and what bounds a body chunk sent to the service well below gRPC's 4 MiB for a message.
BUFFER_LIMIT_BYTES = 1024 * 1024
_CONNECTION_IDLE_S = 300.0
_KEEPALIVE_S = 30
_POLICIES = {
    Balancing.ROUND_ROBIN: ClusterLbPolicy.ROUND_ROBIN,
    Balancing.LEAST_REQUEST: ClusterLbPolicy.LEAST_REQUEST,
}


def pool_clusters(name: str, pool: Pool) -> Iterator[Cluster]:
    for cluster_name, cluster in pool.clusters.items():
        yield _cluster(names.cluster_name(name, cluster_name), pool, cluster)
    if len(pool.clusters) > 1:
        for cluster_name in pool.clusters:
            yield _preferring(name, pool, cluster_name)


def _cluster(name: str, pool: Pool, cluster: pools.Cluster) -> Cluster:
    named = not all(endpoint.is_ip for endpoint in cluster.endpoints)
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS if named else ClusterDiscoveryType.STATIC,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED if named else ClusterDnsLookupFamily.AUTO,
        connect_timeout=wire.seconds(pool.connect_timeout_s),
        per_connection_buffer_limit_bytes=BUFFER_LIMIT_BYTES,
        lb_policy=_POLICIES[pool.balancing],
        load_assignment=_endpoints(name, cluster),
        health_checks=[_health_check(pool)],
        outlier_detection=_outlier_detection(pool),
        circuit_breakers=_circuit_breakers(pool.circuit_breaker),
        common_lb_config=ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0)),
        typed_extension_protocol_options=wire.http_options(_protocol(pool)),
        upstream_connection_options=UpstreamConnectionOptions(
            tcp_keepalive=TcpKeepalive(keepalive_time=_KEEPALIVE_S, keepalive_interval=_KEEPALIVE_S)
        ),
    )


def _preferring(pool_name: str, pool: Pool, first: str) -> Cluster:
    others = [name for name, cluster in pool.clusters.items() if name != first and cluster.weight > 0]
    order = [names.cluster_name(pool_name, name) for name in (first, *others)]
    return Cluster(
        name=names.preferring_cluster_name(pool_name, first),
        connect_timeout=wire.seconds(pool.connect_timeout_s),
        lb_policy=ClusterLbPolicy.CLUSTER_PROVIDED,
        cluster_type=ClusterCustomClusterType(
            name="envoy.clusters.aggregate", typed_config=Any.pack(AggregateConfig(clusters=order))
        ),
        # The router counts retries against this one, connections and requests against those it stands for.
        circuit_breakers=_circuit_breakers(pool.circuit_breaker),
        common_lb_config=ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0)),
    )


def _endpoints(name: str, cluster: pools.Cluster) -> ClusterLoadAssignment:
    cluster_field = Struct(fields={"cluster": Value(string_value=name)})
    endpoints = [
        LbEndpoint(
            endpoint=Endpoint(
                address=wire.address(endpoint),
                hostname=endpoint.host,
                health_check_config=EndpointHealthCheckConfig(hostname=str(endpoint)),
            ),
            # For the access log: Envoy's own word is the cluster that was chosen first, not the one that served.
            metadata=Metadata(filter_metadata={names.METADATA_NAMESPACE: cluster_field}),
        )
        for endpoint in cluster.endpoints
    ]
    return ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)])


def _health_check(pool: Pool) -> HealthCheck:
    health = pool.health
    # A model is ready only on a server that is, and one model that isn't leaves the server's others where they are.
    of_model = f"/v2/models/{quote(pool.model, safe='')}/ready"
    default_path = "/health" if pool.dialect is DialectName.OPENAI else of_model
    return HealthCheck(
        timeout=wire.seconds(health.timeout_s),
        interval=wire.seconds(health.interval_s),
        no_traffic_interval=wire.seconds(health.interval_s),  # its default is a minute
        unhealthy_threshold=health.unhealthy_after,
        healthy_threshold=health.healthy_after,
        http_health_check=HealthCheckHttpHealthCheck(
            path=health.path or default_path,
            codec_client_type=CodecClientType.HTTP2 if pool.http2 else CodecClientType.HTTP1,
        ),
    )


def _outlier_detection(pool: Pool) -> OutlierDetection:
    outliers = pool.outlier_detection
    others = bool(pool.fallback) or sum(len(cluster.endpoints) for cluster in pool.clusters.values()) > 1
    return OutlierDetection(
        consecutive_5xx=outliers.consecutive_5xx,
        consecutive_gateway_failure=outliers.consecutive_5xx,
        enforcing_consecutive_gateway_failure=100,
        interval=wire.seconds(1),
        base_ejection_time=wire.seconds(outliers.ejection_s),
        max_ejection_percent=outliers.max_ejected_percent,
        # The only endpoint of its cluster too, if another cluster or pool can take over; not the last one there is.
        always_eject_one_host=others,
        # A good answer to the health check is no proof: a Triton whose model process died still gives one.
        successful_active_health_check_uneject_host=False,
    )


def _circuit_breakers(limits: pools.CircuitBreaker) -> CircuitBreakers:
    return CircuitBreakers(
        thresholds=[
            CircuitBreakersThresholds(
                max_connections=limits.max_connections,
                max_pending_requests=limits.max_pending_requests,
                max_requests=limits.max_requests,
                retry_budget=CircuitBreakersThresholdsRetryBudget(
                    budget_percent=Percent(value=limits.retry_budget_percent), min_retry_concurrency=3
                ),
            )
        ]
    )


def _protocol(pool: Pool) -> HttpProtocolOptions:
    explicit = (
        HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
        if pool.http2
        else HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=Http1ProtocolOptions())
    )
    return HttpProtocolOptions(
        common_http_protocol_options=CommonProtocolOptions(idle_timeout=wire.seconds(_CONNECTION_IDLE_S)),
        explicit_http_config=explicit,
    )
