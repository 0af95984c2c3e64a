"""Traces by OpenTelemetry: Envoy continues the `traceparent` it is given, or begins a trace.

Must not know: what the service adds to a trace.
"""

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import Http2ProtocolOptions, TypedExtensionConfig
from envoy_data_plane.envoy.config.trace.v3 import OpenTelemetryConfig, TracingHttp
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerTracing,
)
from envoy_data_plane.envoy.extensions.tracers.opentelemetry.samplers.v3 import (
    ParentBasedSamplerConfig,
    TraceIdRatioBasedSamplerConfig,
)
from envoy_data_plane.envoy.type.v3 import FractionalPercent, FractionalPercentDenominatorType, Percent
from envoy_data_plane.google.protobuf import Any

from extproc.config.model import Tracing
from extproc.mesh import names, wire

_PER_MILLION = 1_000_000
_SERVICE_NAME = "extproc-gateway"


def tracing(settings: Tracing) -> HttpConnectionManagerTracing:
    """A caller's own decision, sampled or not, in `traceparent` is followed; the share is for the others."""
    provider = OpenTelemetryConfig(
        grpc_service=wire.grpc_service(names.COLLECTOR_CLUSTER),
        service_name=_SERVICE_NAME,
        sampler=_sampler(settings.sampling_percent),
    )
    return HttpConnectionManagerTracing(
        # The sampler decides. Envoy's own shares would overrule the caller.
        client_sampling=Percent(value=0),
        random_sampling=Percent(value=100),
        overall_sampling=Percent(value=100),
        provider=TracingHttp(name="envoy.tracers.opentelemetry", typed_config=Any.pack(provider)),
        # One span for the client's side and one for each attempt upstream.
        spawn_upstream_span=True,
    )


def _sampler(percent: float) -> TypedExtensionConfig:
    share = FractionalPercent(
        numerator=round(percent * _PER_MILLION / 100), denominator=FractionalPercentDenominatorType.MILLION
    )
    by_share = wire.extension(
        "envoy.tracers.opentelemetry.samplers.trace_id_ratio_based",
        TraceIdRatioBasedSamplerConfig(sampling_percentage=share),
    )
    return wire.extension(
        "envoy.tracers.opentelemetry.samplers.parent_based", ParentBasedSamplerConfig(wrapped_sampler=by_share)
    )


def collector_cluster(settings: Tracing) -> Cluster:
    collector = settings.otlp_grpc
    return Cluster(
        name=names.COLLECTOR_CLUSTER,
        type=ClusterDiscoveryType.STATIC if collector.is_ip else ClusterDiscoveryType.STRICT_DNS,
        connect_timeout=wire.seconds(1),
        load_assignment=wire.load_assignment(names.COLLECTOR_CLUSTER, [collector]),
        typed_extension_protocol_options=wire.http2_options(Http2ProtocolOptions()),
    )
