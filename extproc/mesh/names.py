"""Every name that the generated Envoy configuration and the service have in common.

Must not know: Envoy's messages.
"""

from collections.abc import Iterable

PROCESSOR_CLUSTER = "extproc"
COLLECTOR_CLUSTER = "otlp"
ROUTES = "extproc"
LISTENER = "extproc"
FALLBACK_LISTENER = "extproc-fallback"
PROCESSOR_FILTER = "envoy.filters.http.composite"

METADATA_NAMESPACE = "extproc"
CLIENT_NAMESPACE = "extproc.client"
"""Dynamic metadata of Envoy's own making: `path`, because the service rewrites `:path`."""

HEADER_PREFIX = "x-extproc-"
POOL_HEADER = "x-extproc-pool"
"""The stamp: the one request header that generated routes match on."""

MIRROR_HEADER = "x-extproc-mirror"
"""Beside the stamp, on requests of which another pool gets a copy: the experiment that wants it."""

AFFINITY_HEADER = "x-extproc-affinity"
"""What Envoy hashes to choose an endpoint, where a pool is balanced by keys. It ends here, as the stamp does."""

POOLS_ATTRIBUTE = "xds.virtual_host_name"
"""What Envoy tells the service with each request: by the name of its routes' virtual host, which pools they lead to."""

POOLS_PREFIX = "pools:"

ENDPOINT_HEADER = "x-gateway-destination-endpoint"
"""The endpoints that the service wants tried, in order, where it chooses them: the name in the endpoint picker protocol
of the Gateway API's inference extension. It ends here, too."""

ENDPOINT_ATTRIBUTE = "upstream.address"
"""What Envoy tells the service with each answer: which endpoint it is from."""

DETAILS_ATTRIBUTE = "response.code_details"
"""And whether it is from any: with Envoy's own answers, why."""

ANSWERED_BY_HEADER = "x-extproc-endpoint"
DETAILS_HEADER = "x-extproc-details"
"""The same two, as headers, where the service asks for another pool and no filter of its own sees the answer."""

CLIENT_CONTROLS = ("x-extproc-cache-namespace", "x-extproc-cache-ttl", "x-extproc-priority")
"""The only `x-extproc-` headers that a client may send."""

WEIGHTS_RUNTIME_PREFIX = "extproc.weights"
"""With the pool and the cluster appended, the runtime key that overrides a weight."""


def virtual_host_name(pools: Iterable[str]) -> str:
    """Of a table with routes to these pools."""
    return POOLS_PREFIX + ",".join(pools)


def cluster_name(pool: str, cluster: str) -> str:
    """Envoy's name of a pool's cluster. No name in gateway.yaml contains a slash, so none collide."""
    return f"{pool}/{cluster}"


def preferring_cluster_name(pool: str, cluster: str) -> str:
    """Envoy's name of the cluster that tries this one first and then the pool's others."""
    return f"{cluster_name(pool, cluster)}/first"


def mirror_cluster_name(pool: str, experiment: str) -> str:
    """Envoy's name of the cluster that gets an experiment's copies and nothing else, so that its statistics are
    theirs."""
    return f"{pool}/{experiment}/copies"


def whole_cluster_name(pool: str) -> str:
    """Envoy's name of the cluster that has the endpoints of all of a pool's clusters."""
    return f"{pool}/all/endpoints"
