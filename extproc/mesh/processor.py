"""How Envoy reaches the service: the ext_proc filter, and the cluster of its workers.

The body modes are FULL_DUPLEX_STREAMED, in which Envoy has no message timeout: a service that hangs would hold
its requests until they are idle for `gateway.stream_idle_timeout_s`. Two things end that within seconds: HTTP/2
pings, which a stopped process does not answer, and gRPC health checks, which a blocked event loop does not.

Must not know: what the service does.
"""

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterLbPolicy,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutationRules
from envoy_data_plane.envoy.config.core.v3 import (
    BackoffStrategy,
    GrpcService,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    Http2ProtocolOptions,
    KeepaliveSettings,
    RetryPolicy,
    RetryPolicyRetryHostPredicate,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.extensions.filters.http.composite.v3 import Composite, ExecuteFilterAction
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    ExternalProcessorRouteCacheAction,
    MetadataOptions,
    MetadataOptionsMetadataNamespaces,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.type.matcher.v3 import HttpRequestHeaderMatchInput
from envoy_data_plane.envoy.type.v3 import HttpStatus, Percent, StatusCode
from envoy_data_plane.google.protobuf import Any
from envoy_data_plane.xds.type.matcher.v3 import (
    Matcher,
    MatcherMatcherList,
    MatcherMatcherListFieldMatcher,
    MatcherMatcherListPredicate,
    MatcherMatcherListPredicateSinglePredicate,
    RegexMatcher,
    RegexMatcherGoogleRe2,
    StringMatcher,
)
from envoy_data_plane.xds.type.matcher.v3 import MatcherOnMatch as OnMatch

from extproc.config.address import TcpAddress
from extproc.config.model import GatewayConfig
from extproc.config.policy import FailureMode
from extproc.mesh import names, tokens, wire

_UNLIMITED = 1_000_000
_PING_INTERVAL_S = 1.0
_PING_TIMEOUT_S = 2.0
_HEALTH_INTERVAL_S = 1.0
_HEALTH_TIMEOUT_S = 2.0
# Workers that share a TCP port are told apart only by connection, so a connection takes just so many streams.
_STREAMS_PER_CONNECTION = 64


def processor_filter(config: GatewayConfig) -> HttpFilter:
    send, duplex = ProcessingModeHeaderSendMode.SEND, ProcessingModeBodySendMode.FULL_DUPLEX_STREAMED
    processor = ExternalProcessor(
        grpc_service=_to_another_worker(wire.grpc_service(names.PROCESSOR_CLUSTER)),
        processing_mode=ProcessingMode(
            request_header_mode=send,
            request_body_mode=duplex,
            request_trailer_mode=send,
            response_header_mode=send,
            response_body_mode=duplex,
            response_trailer_mode=send,
        ),
        failure_mode_allow=config.service.on_failure is FailureMode.OPEN,
        status_on_error=HttpStatus(code=StatusCode.ServiceUnavailable),
        # A request is routed by the table that was there when it came. The service must know which, to stamp it.
        request_attributes=[names.POOLS_ATTRIBUTE],
        response_attributes=_attributes_of_answers(config),
        # A mutation that Envoy refuses is a fault of the service; it should be seen, not skipped.
        mutation_rules=HeaderMutationRules(disallow_is_error=True),
        # The stamp has to be able to choose the route, so the one chosen before it is always forgotten.
        route_cache_action=ExternalProcessorRouteCacheAction.CLEAR,
        metadata_options=MetadataOptions(
            receiving_namespaces=MetadataOptionsMetadataNamespaces(untyped=[names.METADATA_NAMESPACE]),
            forwarding_namespaces=_forwarded(config),
        ),
        stat_prefix="extproc",
    )
    return _once_requested(wire.extension("envoy.filters.http.ext_proc", processor))


def _attributes_of_answers(config: GatewayConfig) -> list[str]:
    """Where the service chooses endpoints, it has to know which of its choices answered."""
    choosing = any(pool.balancing.is_ours for pool in config.pools.values())
    return [names.ENDPOINT_ATTRIBUTE, names.DETAILS_ATTRIBUTE] if choosing else []


def _forwarded(config: GatewayConfig) -> MetadataOptionsMetadataNamespaces | None:
    """Each message carries it, so only where there is something to carry."""
    return MetadataOptionsMetadataNamespaces(untyped=[tokens.NAMESPACE]) if config.identities.issuers else None


def _to_another_worker(service: GrpcService) -> GrpcService:
    """A worker that has just died is there until Envoy has noticed, and idle, so it would be given every other request.

    Only streams that no worker has seen are tried again: one exchange must not be begun, and accounted for, twice.
    """
    another = RetryPolicyRetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=Any.pack(PreviousHostsPredicate())
    )
    service.retry_policy = RetryPolicy(
        retry_on="connect-failure,refused-stream",
        num_retries=2,
        retry_host_predicate=[another],
        host_selection_retry_max_attempts=5,
        # Envoy's default is a second; another worker needs no time to recover.
        retry_back_off=BackoffStrategy(base_interval=wire.seconds(0.005), max_interval=wire.seconds(0.05)),
    )
    return service


def _once_requested(filter_config: TypedExtensionConfig) -> HttpFilter:
    """The filter, but only for requests whose headers reached the filter chain.

    Envoy also sends its own errors through the chain, and by itself ext_proc would ask the service about the 400
    for something that was no HTTP: the service would see an answer to a request it never saw, and the client
    nothing, because the connection is closed before the service has replied.
    """
    execute = OnMatch(action=wire.xds_extension("execute", ExecuteFilterAction(typed_config=filter_config)))
    has_method = MatcherMatcherListPredicate(
        single_predicate=MatcherMatcherListPredicateSinglePredicate(
            input=wire.xds_extension("method", HttpRequestHeaderMatchInput(header_name=":method")),
            value_match=StringMatcher(safe_regex=RegexMatcher(regex=".+", google_re2=RegexMatcherGoogleRe2())),
        )
    )
    requested = MatcherMatcherListFieldMatcher(predicate=has_method, on_match=execute)
    composite = Composite(matcher=Matcher(matcher_list=MatcherMatcherList(matchers=[requested])))
    return HttpFilter(name=names.PROCESSOR_FILTER, typed_config=Any.pack(composite))


def processor_cluster(config: GatewayConfig) -> Cluster:
    addresses = config.service.addresses
    named = any(isinstance(address, TcpAddress) and not address.is_ip for address in addresses)
    return Cluster(
        name=names.PROCESSOR_CLUSTER,
        type=ClusterDiscoveryType.STRICT_DNS if named else ClusterDiscoveryType.STATIC,
        connect_timeout=wire.seconds(1),
        lb_policy=ClusterLbPolicy.LEAST_REQUEST,
        load_assignment=wire.load_assignment(names.PROCESSOR_CLUSTER, addresses),
        # One stream per request of any client, however long it takes: the limit on requests is elsewhere.
        circuit_breakers=CircuitBreakers(
            thresholds=[
                CircuitBreakersThresholds(
                    max_connections=_UNLIMITED, max_pending_requests=_UNLIMITED, max_requests=_UNLIMITED
                )
            ]
        ),
        health_checks=[_health_check()],
        close_connections_on_host_health_failure=True,
        # No worker healthy means refuse at once, not try one of them anyway and wait for it.
        common_lb_config=ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0)),
        typed_extension_protocol_options=wire.http2_options(_http2(config)),
    )


def _http2(config: GatewayConfig) -> Http2ProtocolOptions:
    shares_port = config.service.workers > len(config.service.addresses)
    return Http2ProtocolOptions(
        connection_keepalive=KeepaliveSettings(
            interval=wire.seconds(_PING_INTERVAL_S), timeout=wire.seconds(_PING_TIMEOUT_S)
        ),
        max_concurrent_streams=_STREAMS_PER_CONNECTION if shares_port else None,
    )


def _health_check() -> HealthCheck:
    interval = wire.seconds(_HEALTH_INTERVAL_S)
    return HealthCheck(
        timeout=wire.seconds(_HEALTH_TIMEOUT_S),
        interval=interval,
        no_traffic_interval=interval,  # its default is a minute
        unhealthy_threshold=2,
        healthy_threshold=1,
        grpc_health_check=HealthCheckGrpcHealthCheck(),
    )
