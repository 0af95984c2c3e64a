"""KServe's health of a server, `/v2/health/live` and `/v2/health/ready`, answered by Envoy itself and without a key.

For load balancers and probes, which come often and know nothing but a URL. The routes here keep the service out of it:
Envoy sends even answers of its own through its filters, and the service would account for each.

Must not know: what makes a worker healthy.
"""

from collections.abc import Iterator

from envoy_data_plane.envoy.config.route.v3 import DirectResponseAction, FilterConfig, HeaderMatcher, Route, RouteMatch
from envoy_data_plane.envoy.extensions.filters.http.health_check.v3 import HealthCheck
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.envoy.type.v3 import Percent
from envoy_data_plane.google.protobuf import Any

from extproc.mesh import names

# One of a hundred is enough to serve. Envoy compares in whole percents, so that less would be none.
_ANY_WORKER = Percent(value=1)


def readiness() -> HttpFilter:
    """Answers "ready": a worker is healthy, and nobody has told Envoy to drain."""
    path = StringMatcher(safe_regex=RegexMatcher(regex=_path("ready") + r"(\?.*)?"))
    check = HealthCheck(
        pass_through_mode=False,
        headers=[_is_get(), HeaderMatcher(name=":path", string_match=path)],
        cluster_min_healthy_percentages={names.PROCESSOR_CLUSTER: _ANY_WORKER},
    )
    return HttpFilter(name="envoy.filters.http.health_check", typed_config=Any.pack(check))


def health_routes() -> Iterator[Route]:
    """Answers "live", which only needs Envoy; "ready" is answered by the filter before."""
    yield _unseen_by_the_service("live", 200)
    yield _unseen_by_the_service("ready", 503)


def _unseen_by_the_service(question: str, status: int) -> Route:
    return Route(
        name=f"health/{question}",
        match=RouteMatch(safe_regex=RegexMatcher(regex=_path(question)), headers=[_is_get()]),
        direct_response=DirectResponseAction(status=status),
        typed_per_filter_config={names.PROCESSOR_FILTER: Any.pack(FilterConfig(disabled=True))},
    )


def _path(question: str) -> str:
    return f"/v2/health/{question}/?"


def _is_get() -> HeaderMatcher:
    return HeaderMatcher(name=":method", string_match=StringMatcher(exact="GET"))
