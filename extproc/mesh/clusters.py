"""Pools as Envoy clusters: one with the endpoints of all of a pool's clusters, which are balanced as one; or, where
they are split by weight, one for each of its clusters, and where there are several one more for each, which prefers it
and falls back to the others.

The split by weight happens in the route. It names the preferring clusters, so that a request whose cluster is
down, or has just failed it, still goes to another one of the same pool.

Must not know: routes, and what the servers serve.
"""

import math
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from betterproto2 import Message
from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    CircuitBreakersThresholdsRetryBudget,
    Cluster,
    ClusterCommonLbConfig,
    ClusterCommonLbConfigConsistentHashingLbConfig,
    ClusterCustomClusterType,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    ClusterLbPolicy,
    ClusterRingHashLbConfig,
    LoadBalancingPolicy,
    LoadBalancingPolicyPolicy,
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
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request.v3 import LeastRequest
from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host.v3 import (
    OverrideHost,
    OverrideHostOverrideHostSource,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import CodecClientType, Percent
from envoy_data_plane.google.protobuf import Any, Struct, Value

from extproc.config import pools
from extproc.config.balancing import Balancing, HashTable
from extproc.config.pools import DialectName, Pool
from extproc.mesh import names, wire
from extproc.mesh.tls import towards_servers

# Envoy's default, and what bounds a body chunk sent to the service well below gRPC's 4 MiB for a message.
BUFFER_LIMIT_BYTES = 1024 * 1024
_CONNECTION_IDLE_S = 300.0
_KEEPALIVE_S = 30
# With Envoy's own 1024 places, one of 64 endpoints has less than half of its share, and another nearly twice as much.
_RING_SIZE = 32_768
# Envoy wants whole numbers, which add up to less than 2^32.
_MOST_WEIGHT = 100_000


def pool_clusters(name: str, pool: Pool) -> Iterator[Cluster]:
    """What `routes` names for this pool."""
    if len(pool.clusters) == 1:
        ((cluster_name, cluster),) = pool.clusters.items()
        yield _cluster(names.cluster_name(name, cluster_name), name, pool, pool.clusters)
    elif pool.balancing is not Balancing.WEIGHTED:
        in_use = {cluster_name: cluster for cluster_name, cluster in pool.clusters.items() if cluster.weight}
        yield _cluster(names.whole_cluster_name(name), name, pool, in_use)
    else:
        for cluster_name, cluster in pool.clusters.items():
            yield _cluster(names.cluster_name(name, cluster_name), name, pool, {cluster_name: cluster})
        for cluster_name in pool.clusters:
            yield _preferring(name, pool, cluster_name)


def mirror_cluster(name: str, pool: Pool, experiment: str) -> Cluster:
    """The same servers as this pool's, for an experiment's copies alone."""
    return _cluster(names.mirror_cluster_name(name, experiment), name, pool, pool.clusters)


def _cluster(name: str, pool_name: str, pool: Pool, members: Mapping[str, pools.Cluster]) -> Cluster:
    """Envoy's cluster with the endpoints of `members`."""
    named = not all(endpoint.is_ip for cluster in members.values() for endpoint in cluster.endpoints)
    cluster = Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS if named else ClusterDiscoveryType.STATIC,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED if named else ClusterDnsLookupFamily.AUTO,
        connect_timeout=wire.seconds(pool.connect_timeout_s),
        per_connection_buffer_limit_bytes=BUFFER_LIMIT_BYTES,
        load_assignment=_endpoints(name, pool_name, members),
        health_checks=[_health_check(pool)],
        outlier_detection=_outlier_detection(pool),
        circuit_breakers=_circuit_breakers(pool.circuit_breaker, len(members)),
        common_lb_config=ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0)),
        typed_extension_protocol_options=wire.http_options(_protocol(pool)),
        transport_socket=towards_servers(pool.tls, http2=pool.http2) if pool.tls else None,
        upstream_connection_options=UpstreamConnectionOptions(
            tcp_keepalive=TcpKeepalive(keepalive_time=_KEEPALIVE_S, keepalive_interval=_KEEPALIVE_S)
        ),
    )
    _balance(cluster, pool)
    return cluster


def _balance(cluster: Cluster, pool: Pool) -> None:
    hashing = pool.hashing
    if pool.balancing.is_ours:
        cluster.load_balancing_policy = _named_by_service()
        return
    if hashing is None:
        least = pool.balancing is Balancing.LEAST_REQUEST
        cluster.lb_policy = ClusterLbPolicy.LEAST_REQUEST if least else ClusterLbPolicy.ROUND_ROBIN
        return
    if hashing.table is HashTable.MAGLEV:
        cluster.lb_policy = ClusterLbPolicy.MAGLEV
    else:
        cluster.lb_policy = ClusterLbPolicy.RING_HASH
        cluster.ring_hash_lb_config = ClusterRingHashLbConfig(minimum_ring_size=_RING_SIZE)
    if hashing.max_load_percent is not None and cluster.common_lb_config is not None:
        bound = ClusterCommonLbConfigConsistentHashingLbConfig(hash_balance_factor=hashing.max_load_percent)
        cluster.common_lb_config.consistent_hashing_lb_config = bound


def _named_by_service() -> LoadBalancingPolicy:
    """The endpoints that the service names, each attempt the next of them; without any, the less busy of two."""
    least = LeastRequest(choice_count=2)
    named = OverrideHost(
        override_host_sources=[OverrideHostOverrideHostSource(header=names.ENDPOINT_HEADER)],
        fallback_policy=_policy("envoy.load_balancing_policies.least_request", least),
    )
    return _policy("envoy.load_balancing_policies.override_host", named)


def _policy(name: str, settings: Message) -> LoadBalancingPolicy:
    one = LoadBalancingPolicyPolicy(typed_extension_config=wire.extension(name, settings))
    return LoadBalancingPolicy(policies=[one])


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


def _endpoints(name: str, pool_name: str, members: Mapping[str, pools.Cluster]) -> ClusterLoadAssignment:
    endpoints = [
        LbEndpoint(
            endpoint=Endpoint(
                address=wire.address(endpoint),
                hostname=endpoint.host,
                health_check_config=EndpointHealthCheckConfig(hostname=str(endpoint)),
            ),
            # For the access log: Envoy's own word is the cluster that was chosen first, not the one that served.
            metadata=Metadata(filter_metadata={names.METADATA_NAMESPACE: _cluster_field(pool_name, member)}),
            load_balancing_weight=weight,
        )
        for member, weight in _endpoint_weights(members).items()
        for endpoint in members[member].endpoints
    ]
    return ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)])


def _cluster_field(pool_name: str, cluster_name: str) -> Struct:
    return Struct(fields={"cluster": Value(string_value=names.cluster_name(pool_name, cluster_name))})


def _endpoint_weights(members: Mapping[str, pools.Cluster]) -> Mapping[str, int | None]:
    """What each endpoint of a cluster weighs: a cluster's own weight is shared by its endpoints."""
    if len(members) == 1:
        return dict.fromkeys(members)
    every = math.lcm(*(len(cluster.endpoints) for cluster in members.values()))
    exact = {name: cluster.weight * every // len(cluster.endpoints) for name, cluster in members.items()}
    divisor = max(math.gcd(*exact.values()), max(exact.values()) / _MOST_WEIGHT)
    return {name: max(1, round(weight / divisor)) for name, weight in exact.items()}


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


def _circuit_breakers(limits: pools.CircuitBreaker, clusters: int = 1) -> CircuitBreakers:
    """`clusters`: for how many of the pool's clusters this one stands."""
    return CircuitBreakers(
        thresholds=[
            CircuitBreakersThresholds(
                max_connections=limits.max_connections * clusters,
                max_pending_requests=limits.max_pending_requests * clusters,
                max_requests=limits.max_requests * clusters,
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
