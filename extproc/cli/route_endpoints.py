"""Which endpoint of a pool `extproc route --explain` expects, where the service chooses: by what Redis, the servers and
Envoy say now, and the code that chooses. What a running worker has seen fail is known to that worker alone.
"""

import asyncio
import urllib.parse
import urllib.request
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extproc.config.model import GatewayConfig
    from extproc.config.pools import Pool
    from extproc.routing.endpoints import Endpoints
    from extproc.routing.pressure import EndpointLoad

_TIMEOUT_S = 1.0
_LIMIT_BYTES = 64 << 20
_AT_ONCE = 16


def explained_endpoints(config: "GatewayConfig", pool_name: str, tokens: int, *, redis: bool) -> dict[str, Any] | None:
    """Every endpoint of the pool, the best first, and what is known of it; None where Envoy chooses."""
    from extproc.config.balancing import Balancing
    from extproc.routing.endpoint_book import terms_of
    from extproc.routing.endpoints import Endpoints

    pool = config.pools[pool_name]
    if not pool.balancing.is_ours:
        return None
    endpoints, unknown = Endpoints(terms_of(pool)), []
    pending = _pending(config, pool_name) if redis else None
    if pending is None:
        unknown.append("what is pending")
    else:
        endpoints.heard(pending, 0, {})
    if pool.balancing is Balancing.GPU_AWARE:
        loads = _loads(pool)
        endpoints.measured(loads)
        unknown += [f"how busy {address} is" for address in endpoints.terms.weights if address not in loads]
    down = _down(config, pool_name)
    if down is None:
        unknown.append("who is unhealthy")
    endpoints.probed(down or frozenset())
    return {"strategy": str(pool.balancing), "order": _order(endpoints, tokens), "unknown": unknown}


def _order(endpoints: "Endpoints", tokens: int) -> list[dict[str, Any]]:
    return [
        {
            "endpoint": address,
            "pending_tokens": endpoints.pending(address),
            "busy": round(endpoints.busy(address), 3),
            "unhealthy": endpoints.is_out(address),
            "first_choice": address in endpoints.best(tokens),
        }
        for address in sorted(endpoints.terms.weights, key=endpoints.score)
    ]


def _pending(config: "GatewayConfig", pool: str) -> Mapping[str, int] | None:
    from extproc.stores.errors import StoreUnavailable
    from extproc.stores.pending import PendingStore

    async def read() -> Mapping[str, int]:
        store = PendingStore(config.redis.url.get_secret_value(), _TIMEOUT_S)
        try:
            return (await store.read(pool)).tokens
        finally:
            await store.close()

    try:
        return asyncio.run(read())
    except StoreUnavailable:
        return None


def _loads(pool: "Pool") -> "Mapping[str, EndpointLoad]":
    from extproc.routing import triton_metrics
    from extproc.routing.endpoint_book import envoys_spelling

    pairs = [
        (envoys_spelling(endpoint), f"http://{server}/metrics")
        for cluster in pool.clusters.values()
        for endpoint, server in zip(cluster.endpoints, cluster.metrics, strict=False)
    ]
    pages = _fetched(url for _, url in pairs)
    return {
        address: triton_metrics.load_of(triton_metrics.parse(page), pool.model, 0.0)
        for (address, _), page in zip(pairs, pages, strict=True)
        if page is not None
    }


def _down(config: "GatewayConfig", pool: str) -> Collection[str] | None:
    from extproc.routing.envoy_health import unhealthy

    asked = urllib.parse.urlencode({"filter": f"^{pool}/"})
    (page,) = _fetched([f"http://{config.gateway.admin}/clusters?{asked}"])
    return None if page is None else unhealthy(page).get(pool, frozenset())


def _fetched(urls: Iterable[str]) -> list[str | None]:
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(_page, urls))


def _page(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 (http, as it is put together above)
            return str(answer.read(_LIMIT_BYTES).decode("utf-8", "replace"))
    except OSError:
        return None
