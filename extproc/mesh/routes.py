"""Routes: only what the service has stamped reaches a pool; everything else is answered here.

Must not know: how a pool is reached.
"""

import json

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    RetryPolicy,
    RetryPolicyRetryHostPredicate,
    RetryPolicyRetryPriority,
    Route,
    RouteAction,
    RouteActionHashPolicy,
    RouteActionHashPolicyHeader,
    RouteActionRequestMirrorPolicy,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
    WeightedClusterClusterWeight,
)
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.extensions.retry.priority.previous_priorities.v3 import PreviousPrioritiesConfig
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

from extproc.config.balancing import Balancing
from extproc.config.model import GatewayConfig
from extproc.config.policy import FailureMode
from extproc.config.pools import DialectName, Pool
from extproc.config.routing_references import pools_of
from extproc.mesh import names, wire
from extproc.mesh.health import health_routes

# Failures before an upstream can have begun to answer; `reset-before-request` means that not even the whole
# request had been sent. A 503 is Triton's refusal to take a request (model not ready, queue full); 502 and 504 are what
# a proxy before a server says of it.
_RETRY_ON = "connect-failure,refused-stream,reset-before-request,retriable-status-codes"
_RETRIABLE_STATUS_CODES = [502, 503, 504]
# One server has enough to do, and says when to come back; another may have time now.
_BUSY = 429
# Triton's generate endpoints say 400 to every failure of a model, and that of a dead model's process while they still
# are "ready". The gateway wrote the request, so another server may well do better. Outlier detection doesn't count
# them: a client with a parameter that the backend refuses could have servers ejected.
_FAILED_GENERATE = 400

# What a client has no business telling an upstream, and what is the gateway's own.
_NOT_FOR_UPSTREAMS = [
    "authorization",
    "x-api-key",
    "cookie",
    "x-forwarded-client-cert",
    names.POOL_HEADER,
    names.MIRROR_HEADER,
    *names.CLIENT_CONTROLS,
]


def routes(config: GatewayConfig) -> RouteConfiguration:
    stamped = (_stamped(name, pool, config) for name, pool in config.pools.items())
    every = [*health_routes(), *_mirrored(config), *stamped]
    if config.service.on_failure is FailureMode.OPEN and config.gateway.default_pool is not None:
        name = config.gateway.default_pool
        every.append(_pool_route("unstamped", RouteMatch(prefix="/"), name, config.pools[name], config))
    every.append(_nothing_here())
    host = VirtualHost(name=names.virtual_host_name(config.pools), domains=["*"], routes=every)
    return RouteConfiguration(name=names.ROUTES, virtual_hosts=[host])


def _mirrored(config: GatewayConfig) -> list[Route]:
    """Those of requests of which another pool gets a copy. By route, and not by `cluster_header`, so that the header is
    gone before any upstream sees it."""
    mirrored = []
    for experiment_name, experiment in config.experiments.items():
        if experiment.mirror is None:
            continue
        wanted = HeaderMatcher(name=names.MIRROR_HEADER, string_match=StringMatcher(exact=experiment_name))
        # The copy is to differ in nothing, its host neither.
        copy = RouteActionRequestMirrorPolicy(
            cluster=names.mirror_cluster_name(experiment.mirror.pool, experiment_name),
            disable_shadow_host_suffix_append=True,
        )
        for name in dict.fromkeys(pools_of(experiment, config)):
            route = _stamped(name, config.pools[name], config)
            route.name = f"{name}+{experiment_name}"
            assert route.match is not None, "it was made above"
            assert route.route is not None, "it was made above"
            route.match.headers.append(wanted)
            route.route.request_mirror_policies = [copy]
            mirrored.append(route)
    return mirrored


def _stamped(name: str, pool: Pool, config: GatewayConfig) -> Route:
    stamp = HeaderMatcher(name=names.POOL_HEADER, string_match=StringMatcher(exact=name))
    return _pool_route(name, RouteMatch(prefix="/", headers=[stamp]), name, pool, config)


def _pool_route(route_name: str, match: RouteMatch, name: str, pool: Pool, config: GatewayConfig) -> Route:
    action = RouteAction(
        timeout=wire.seconds(pool.request_timeout_s),
        idle_timeout=wire.seconds(config.gateway.stream_idle_timeout_s),
        retry_policy=_retry_policy(pool),
    )
    if pool.hashing is not None:
        header = RouteActionHashPolicyHeader(header_name=names.AFFINITY_HEADER)
        action.hash_policy = [RouteActionHashPolicy(header=header)]
    if len(pool.clusters) == 1:
        action.cluster = names.cluster_name(name, next(iter(pool.clusters)))
    elif pool.balancing is Balancing.WEIGHTED:
        action.weighted_clusters = _weighted(name, pool)
    else:
        action.cluster = names.whole_cluster_name(name)
    return Route(
        name=route_name,
        match=match,
        route=action,
        request_headers_to_remove=_NOT_FOR_UPSTREAMS,
        request_headers_to_add=[wire.set_header("accept-encoding", "identity")],
        # A request can only be tried again while Envoy still has all of it.
        request_body_buffer_limit=config.gateway.max_body_bytes,
    )


def _weighted(name: str, pool: Pool) -> WeightedCluster:
    return WeightedCluster(
        clusters=[
            WeightedClusterClusterWeight(name=names.preferring_cluster_name(name, cluster_name), weight=cluster.weight)
            for cluster_name, cluster in pool.clusters.items()
        ],
        runtime_key_prefix=f"{names.WEIGHTS_RUNTIME_PREFIX}.{name}",
    )


def _retry_policy(pool: Pool) -> RetryPolicy:
    by_cluster = len(pool.clusters) > 1 and pool.balancing is Balancing.WEIGHTED
    next_cluster = RetryPolicyRetryPriority(
        name="envoy.retry_priorities.previous_priorities",
        typed_config=Any.pack(PreviousPrioritiesConfig(update_frequency=1)),
    )
    other_endpoint = RetryPolicyRetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=Any.pack(PreviousHostsPredicate())
    )
    return RetryPolicy(
        retry_on=_RETRY_ON,
        retriable_status_codes=_retriable_status_codes(pool),
        num_retries=pool.retries,
        per_try_idle_timeout=wire.seconds(pool.idle_timeout_s),
        retry_host_predicate=[other_endpoint],
        host_selection_retry_max_attempts=5,
        retry_priority=next_cluster if by_cluster else None,
    )


def _retriable_status_codes(pool: Pool) -> list[int]:
    if sum(len(cluster.endpoints) for cluster in pool.clusters.values()) == 1:
        return _RETRIABLE_STATUS_CODES
    elsewhere = [_BUSY]
    if pool.dialect is DialectName.TRITON_GENERATE:
        elsewhere.append(_FAILED_GENERATE)
    return sorted([*_RETRIABLE_STATUS_CODES, *elsewhere])


def _nothing_here() -> Route:
    error = {
        "message": "There is nothing here.",
        "type": "invalid_request_error",
        "param": None,
        "code": "unknown_url",
    }
    return Route(
        name="nothing",
        match=RouteMatch(prefix="/"),
        direct_response=DirectResponseAction(
            status=404, body=DataSource(inline_string=json.dumps({"error": error}, separators=(",", ":")))
        ),
        response_headers_to_add=[wire.set_header("content-type", "application/json")],
    )
