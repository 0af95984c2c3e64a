"""The endpoints of all pools where the service chooses them, for as long as a worker lives.

Must not know: how anything is heard, or asked for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from extproc.config.address import TcpAddress
from extproc.config.balancing import GpuAware
from extproc.config.model import GatewayConfig
from extproc.config.pools import Pool
from extproc.routing.endpoints import Endpoints, Terms


class EndpointBook:
    """By pool. Empty where Envoy alone chooses."""

    def __init__(self) -> None:
        self.pools: Mapping[str, Endpoints] = {}

    def __bool__(self) -> bool:
        return bool(self.pools)

    def of(self, pool: str) -> Endpoints | None:
        """None: Envoy chooses."""
        return self.pools.get(pool)

    def take_up(self, config: GatewayConfig) -> None:
        """Have the pools of this configuration. What is pending in those that stay is kept."""
        pools = {}
        for name, pool in config.pools.items():
            if not pool.balancing.is_ours:
                continue
            terms = terms_of(pool)
            endpoints = self.pools.get(name)
            if endpoints is None:
                endpoints = Endpoints(terms)
            elif endpoints.terms != terms:
                endpoints.change(terms)
            pools[name] = endpoints
        self.pools = pools


def terms_of(pool: Pool) -> Terms:
    """Of a pool where the service chooses."""
    return Terms(
        pool.balancing,
        _weights(pool),
        pool.retries + 1,
        pool.gpu_aware or GpuAware(),
        pool.full_queue,
        pool.outlier_detection.ejection_s,
    )


def _weights(pool: Pool) -> Mapping[str, float]:
    """A cluster's weight is shared by its endpoints."""
    used = [cluster for cluster in pool.clusters.values() if cluster.weight]
    if len(pool.clusters) == 1:
        used = list(pool.clusters.values())
    weights = {
        envoys_spelling(endpoint): cluster.weight / len(cluster.endpoints)
        for cluster in used
        for endpoint in cluster.endpoints
    }
    mean = sum(weights.values()) / len(weights)
    return {address: weight / mean for address, weight in weights.items()}


def envoys_spelling(address: TcpAddress) -> str:
    """As Envoy writes it, to which it compares: an IPv6 address has several spellings."""
    host = ipaddress.ip_address(address.host)
    return f"[{host.compressed}]:{address.port}" if host.version == 6 else f"{host}:{address.port}"
