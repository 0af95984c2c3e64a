"""The `pools` section: where a model is served, and how Envoy treats those servers.

Must not know: how any of it is said to Envoy.
"""

import enum
from collections.abc import Mapping
from typing import Annotated

import pydantic

from extproc.config.address import HostPort
from extproc.config.balancing import Balancing, ConsistentHash, GpuAware
from extproc.config.section import ModelName, Name, Seconds, Section
from extproc.config.tls import UpstreamTls
from extproc.operation import Operation

_Count = Annotated[int, pydantic.Field(ge=1, le=1_000_000)]


class DialectName(enum.StrEnum):
    """What a pool's servers speak."""

    OPENAI = "openai"
    TRITON_GENERATE = "triton-generate"
    KSERVE = "kserve"


CARRIES: Mapping[DialectName, frozenset[Operation]] = {
    DialectName.OPENAI: frozenset({Operation.CHAT, Operation.COMPLETIONS, Operation.EMBEDDINGS}),
    DialectName.TRITON_GENERATE: frozenset({Operation.CHAT, Operation.COMPLETIONS}),
    DialectName.KSERVE: frozenset({Operation.EMBEDDINGS, Operation.INFER}),
}
"""What can be said in each dialect."""


class PressureSignal(enum.StrEnum):
    """What a server's pressure is read from: requests that `queue` for the model, its `gpu`s' utilisation, its
    `kv_cache`."""

    QUEUE = "queue"
    GPU = "gpu"
    KV_CACHE = "kv_cache"


class Health(Section):
    """Active health checks of every endpoint."""

    path: Annotated[str, pydantic.StringConstraints(pattern=r"^/\S*$")] | None = None
    """Path to probe; by default `/v2/models/M/ready` of the pool's model (Triton dialects), which is ready only on a
    server that is, or `/health` (`openai`). `/v2/health/ready` asks a Triton for all its models at once."""

    interval_s: Seconds = 2.0
    """Time between two probes."""

    timeout_s: Seconds = 1.0
    """A probe unanswered for so long has failed."""

    unhealthy_after: _Count = 2
    """So many failed probes in a row take an endpoint out."""

    healthy_after: _Count = 1
    """So many good probes in a row put it back."""


class OutlierDetection(Section):
    """Passive health: what an endpoint did with real requests."""

    consecutive_5xx: _Count = 5
    """So many 5xx answers or failed connections in a row eject an endpoint."""

    ejection_s: Seconds = 10.0
    """How long the first ejection lasts; each further one lasts that much longer."""

    max_ejected_percent: Annotated[int, pydantic.Field(ge=0, le=100)] = 50
    """At most this share of a cluster's endpoints is ejected at a time (one may always be, if the pool has others)."""


class CircuitBreaker(Section):
    """The most that one cluster is given at a time."""

    max_connections: _Count = 1024
    """Connections to the cluster."""

    max_pending_requests: _Count = 1024
    """Requests waiting for a connection."""

    max_requests: _Count = 1024
    """Requests in flight."""

    retry_budget_percent: Annotated[float, pydantic.Field(ge=0, le=100)] = 20.0
    """Retries in flight, as a share of the requests in flight (three are always allowed)."""


class Cluster(Section):
    """One group of equal servers."""

    weight: Annotated[int, pydantic.Field(ge=0, le=1_000_000)] = 1
    """Share of the pool's requests, relative to the weights of its other clusters; 0 takes it out. Among all endpoints
    at once it is shared by the cluster's own."""

    endpoints: Annotated[tuple[HostPort, ...], pydantic.Field(min_length=1)]
    """`host:port` of each server."""

    metrics: tuple[HostPort, ...] = ()
    """`host:port` of each server's Prometheus metrics (Triton: port 8002), in the order of `endpoints`; none: nobody
    asks how busy they are. A name that stands for several servers tells only of one of them at a time."""


class Fallback(Section):
    """Another pool for what this one failed to answer."""

    pool: Name
    """A key of `pools`. Its own `fallback` plays no part."""

    public_model: ModelName | None = None
    """The key of `models` that it serves there, if that is another model: its chat template, window, output cap,
    tokenizer and price hold for what it answers."""


class Pool(Section):
    """Clusters that serve one upstream model in one dialect."""

    dialect: DialectName
    """What the servers speak: `openai`, `triton-generate` or `kserve`."""

    model: Annotated[str, pydantic.StringConstraints(pattern=r"^\S{1,256}$")]
    """The model's name on the servers."""

    clusters: Annotated[Mapping[Name, Cluster], pydantic.Field(min_length=1)]
    """The clusters by name."""

    balancing: Balancing = Balancing.WEIGHTED
    """How an endpoint is picked: `weighted` (a cluster by its weight, then its endpoints in turn), or among all
    endpoints at once `round_robin`, `least_request`, `consistent_hash`, `least_tokens` or `gpu_aware`."""

    consistent_hash: ConsistentHash | None = None
    """The key of a request, with `balancing: consistent_hash`."""

    gpu_aware: GpuAware | None = None
    """What makes an endpoint busy, with `balancing: gpu_aware`."""

    full_queue: _Count = 16
    """So many requests that wait at one server are full pressure."""

    pressure_from: Annotated[tuple[PressureSignal, ...], pydantic.Field(min_length=1)] = (
        PressureSignal.QUEUE,
        PressureSignal.GPU,
    )
    """What makes pressure, the highest of `queue`, `gpu` and `kv_cache`. A server that batches well has a busy GPU and
    no queue: leave `gpu` out for those."""

    http2: bool = False
    """Speak HTTP/2 (prior knowledge) to the servers."""

    tls: UpstreamTls | None = None
    """Speak TLS to the servers."""

    connect_timeout_s: Seconds = 1.0
    """A connection not established by then has failed."""

    request_timeout_s: Seconds = 600.0
    """Longest time from the request to the end of its answer, retries included."""

    idle_timeout_s: Seconds = 120.0
    """Longest silence of the server within one request, before or between its tokens."""

    retries: Annotated[int, pydantic.Field(ge=0, le=10)] = 2
    """Further attempts, on other endpoints where there are any, of what was not answered (docs/failover.md)."""

    fallback: tuple[Fallback, ...] = ()
    """Other pools, in this order, for a request that this one did not begin to answer (docs/failover.md)."""

    model_mesh: Name | None = None
    """The key of `model_meshes` whose servers these are: their models are loaded when a request needs one."""

    health: Health = Health()
    """Active health checks."""

    outlier_detection: OutlierDetection = OutlierDetection()
    """Ejection of endpoints that fail real requests."""

    circuit_breaker: CircuitBreaker = CircuitBreaker()
    """The most that one cluster is given at a time."""

    @property
    def hashing(self) -> ConsistentHash | None:
        """How keys are made, if the pool is balanced by keys."""
        if self.balancing is not Balancing.CONSISTENT_HASH:
            return None
        return self.consistent_hash or ConsistentHash()

    @property
    def is_measured(self) -> bool:
        """Some server of it shows its metrics."""
        return any(cluster.metrics for cluster in self.clusters.values())
