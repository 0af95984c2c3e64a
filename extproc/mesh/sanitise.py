"""What clients and upstreams may not say: forged `x-extproc-*` and the like are removed.

A client's headers are cleaned by early header mutation, which runs before the first route is chosen. A filter
would be too late: Envoy would have picked, and cached, a route by the forged header before any filter ran.

Must not know: what the headers mean to the service.
"""

from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation
from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import (
    HeaderMutation as HeaderMutationFilter,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.google.protobuf import Any

from extproc.mesh import names, wire

_KEPT_PREFIX = "x-kept-"


def client_headers(*more: HeaderMutation) -> TypedExtensionConfig:
    """Removes every header that has a meaning inside the gateway, and does what `more` says."""
    kept = {name: _KEPT_PREFIX + name.removeprefix(names.HEADER_PREFIX) for name in names.CLIENT_CONTROLS}
    mutations: list[HeaderMutation] = [wire.mutate_remove_prefix(_KEPT_PREFIX)]
    # A header that the client did not send has an empty value, and empty values are not set.
    mutations += [wire.mutate_set(safe, f"%REQ({name})%") for name, safe in kept.items()]
    mutations += [
        wire.mutate_remove_prefix(names.HEADER_PREFIX),
        # With an underscore it is another header to Envoy, and the same one to many servers behind it.
        wire.mutate_remove_prefix(names.HEADER_PREFIX.replace("-", "_")),
        wire.mutate_remove_prefix("x-envoy-"),
        wire.mutate_remove(names.ENDPOINT_HEADER),
    ]
    mutations += [wire.mutate_set(name, f"%REQ({safe})%") for name, safe in kept.items()]
    mutations += [wire.mutate_remove_prefix(_KEPT_PREFIX), *more]
    return wire.extension("envoy.http.early_header_mutation.header_mutation", EarlyHeaderMutation(mutations=mutations))


def upstream_headers() -> HttpFilter:
    """Removes what only the service may say from an upstream's response. For the router's upstream
    filters, which only real responses pass: in the listener's it would also take them from the service's answers.

    And from the request, what the choice of the endpoint was made by: a route that removes it does so before Envoy
    chooses.
    """
    mutations = Mutations(
        request_mutations=[wire.mutate_remove(names.AFFINITY_HEADER), wire.mutate_remove(names.ENDPOINT_HEADER)],
        response_mutations=[
            wire.mutate_remove_prefix(names.HEADER_PREFIX),
            wire.mutate_remove_prefix("x-ratelimit-"),
            wire.mutate_remove(names.ENDPOINT_HEADER),
        ],
        response_trailers_mutations=[wire.mutate_remove_prefix(names.HEADER_PREFIX)],
    )
    return HttpFilter(
        name="envoy.filters.http.header_mutation",
        typed_config=Any.pack(HeaderMutationFilter(mutations=mutations)),
    )
