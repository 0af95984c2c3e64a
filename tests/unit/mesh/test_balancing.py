"""How a pool that is balanced as one is said to Envoy."""

from collections.abc import Iterator
from typing import Any

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterLbPolicy
from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host.v3 import OverrideHost

from extproc import config
from extproc.mesh import names
from extproc.mesh.clusters import pool_clusters
from extproc.mesh.processor import processor_filter
from extproc.mesh.render import plain
from extproc.mesh.routes import routes
from extproc.routing import pool_calls

BALANCINGS = ["round_robin", "least_request", "consistent_hash", "least_tokens"]


def loaded(settings: str, clusters: str) -> config.GatewayConfig:
    return config.parse(
        "keys: {hash_secret: 0123456789abcdef}\n"
        "models: {m: {pool: p, operations: [chat], context_window: 100}}\n"
        f"pools: {{p: {{dialect: openai, model: x, clusters: {{{clusters}}}, {settings}}}}}\n",
        {},
        {},
    )


def endpoints(*ports: int) -> str:
    return "endpoints: [" + ", ".join(f'"127.0.0.1:{port}"' for port in ports) + "]"


def clusters_of(settings: str, clusters: str) -> list[Cluster]:
    return list(pool_clusters("p", loaded(settings, clusters).pools["p"]))


def weights(cluster: Cluster) -> list[int | None]:
    assert cluster.load_assignment is not None
    (group,) = cluster.load_assignment.endpoints
    return [endpoint.load_balancing_weight for endpoint in group.lb_endpoints]


@pytest.mark.parametrize(
    ("clusters", "expected"),
    [
        (f"a: {{weight: 1, {endpoints(1)}}}, b: {{weight: 1, {endpoints(2)}}}", [1, 1]),
        (f"a: {{weight: 90, {endpoints(1)}}}, b: {{weight: 10, {endpoints(2)}}}", [9, 1]),
        (f"a: {{weight: 2, {endpoints(1, 2)}}}, b: {{weight: 7, {endpoints(3, 4, 5)}}}", [3, 3, 7, 7, 7]),
        (f"a: {{weight: 0, {endpoints(1)}}}, b: {{weight: 5, {endpoints(2, 3)}}}", [None, None]),
        (f"a: {{weight: 1000000, {endpoints(1)}}}, b: {{weight: 1, {endpoints(2)}}}", [100_000, 1]),
    ],
)
def test_a_clusters_weight_is_shared_by_its_endpoints(clusters: str, expected: list[int | None]) -> None:
    (cluster,) = clusters_of("balancing: least_request", clusters)
    assert weights(cluster) == expected


@pytest.mark.parametrize("balancing", BALANCINGS)
def test_it_is_given_what_its_clusters_have_together(balancing: str) -> None:
    two = f"a: {{{endpoints(1)}}}, b: {{{endpoints(2)}}}, gone: {{weight: 0, {endpoints(3)}}}"
    (cluster,) = clusters_of(f"balancing: {balancing}, circuit_breaker: {{max_requests: 10}}", two)
    assert cluster.circuit_breakers is not None
    assert cluster.circuit_breakers.thresholds[0].max_requests == 20


@pytest.mark.parametrize("balancing", BALANCINGS)
@pytest.mark.parametrize("clusters", [f"a: {{{endpoints(1)}}}", f"a: {{{endpoints(1)}}}, b: {{{endpoints(2)}}}"])
def test_its_route_names_the_cluster_that_there_is(balancing: str, clusters: str) -> None:
    parsed = loaded(f"balancing: {balancing}", clusters)
    (cluster,) = pool_clusters("p", parsed.pools["p"])
    (route,) = [route for route in routes(parsed).virtual_hosts[0].routes if route.name == "p"]
    assert route.route is not None
    assert route.route.cluster == cluster.name
    headers = [policy.header.header_name for policy in route.route.hash_policy if policy.header is not None]
    assert headers == (["x-extproc-affinity"] if balancing == "consistent_hash" else [])


def test_the_service_names_endpoints_and_is_told_who_answered() -> None:
    (cluster,) = clusters_of("balancing: least_tokens", f"a: {{{endpoints(1)}}}, b: {{{endpoints(2)}}}")
    assert cluster.load_balancing_policy is not None
    (policy,) = cluster.load_balancing_policy.policies
    assert policy.typed_extension_config is not None
    assert policy.typed_extension_config.typed_config is not None
    named = OverrideHost.parse(policy.typed_extension_config.typed_config.value)
    assert [source.header for source in named.override_host_sources] == ["x-gateway-destination-endpoint"]
    assert named.fallback_policy is not None
    (fallback,) = named.fallback_policy.policies
    assert fallback.typed_extension_config is not None
    assert fallback.typed_extension_config.name == "envoy.load_balancing_policies.least_request"
    for balancing, attributes in (("least_tokens", ["upstream.address", "response.code_details"]), ("round_robin", [])):
        processor = plain(processor_filter(loaded(f"balancing: {balancing}", f"a: {{{endpoints(1)}}}")))
        assert list(found(processor, "response_attributes")) == ([attributes] if attributes else [])
    assert (names.ANSWERED_BY_HEADER, names.DETAILS_HEADER) == (pool_calls.ENDPOINT, pool_calls.DETAILS)


def found(value: Any, name: str) -> Iterator[Any]:
    """What stands under this name, wherever that is."""
    if isinstance(value, dict):
        yield from (inner for key, inner in value.items() if key == name)
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from found(inner, name)


def test_the_bound_and_the_ring() -> None:
    two = f"a: {{{endpoints(1)}}}, b: {{{endpoints(2)}}}"
    (maglev,) = clusters_of("balancing: consistent_hash", two)
    (ring,) = clusters_of(
        "balancing: consistent_hash, consistent_hash: {table: ring_hash, max_load_percent: null}", two
    )
    assert (maglev.lb_policy, ring.lb_policy) == (ClusterLbPolicy.MAGLEV, ClusterLbPolicy.RING_HASH)
    assert maglev.common_lb_config is not None
    assert maglev.common_lb_config.consistent_hashing_lb_config is not None
    assert maglev.common_lb_config.consistent_hashing_lb_config.hash_balance_factor == 150
    assert ring.common_lb_config is not None
    assert ring.common_lb_config.consistent_hashing_lb_config is None
    assert ring.ring_hash_lb_config is not None
    assert ring.ring_hash_lb_config.minimum_ring_size == 32_768
