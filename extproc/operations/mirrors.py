"""What came of an experiment's copies: Envoy makes them and drops their answers, so only Envoy can tell.

Its counters are of one Envoy, since that started. Must not know: how the figures are shown.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from extproc.config.address import TcpAddress
from extproc.config.model import GatewayConfig
from extproc.mesh.names import mirror_cluster_name

_TIMEOUT_S = 2.0
_LIMIT_BYTES = 1024 * 1024
_LEVELS = {"p50": 50.0, "p95": 95.0, "p99": 99.0}
_COUNTED = ("upstream_rq_completed", "upstream_rq_total", "upstream_rq_5xx")
_TIMED = "upstream_rq_time"
_log = logging.getLogger(__name__)


class Copies(Struct, frozen=True):
    """The copies that have come to an end, how many of them reached a server, and how many failed (5xx, with those that
    Envoy itself gave up). `latency_ms` by percentile, of answered ones to their end; empty until Envoy has any (it adds
    them up every five seconds)."""

    ended: int
    sent: int
    failed: int
    latency_ms: Mapping[str, float]


class Mirror(Struct, frozen=True):
    """A shadow arm. `copies` is None where Envoy doesn't say."""

    pool: str
    copies: Copies | None


class _Quantiles(Struct):
    name: str
    values: list[dict[str, float | None]]


class _Histograms(Struct):
    supported_quantiles: list[float]
    computed_quantiles: list[_Quantiles] = field(default_factory=list)


class _Stat(Struct):
    """A number by its name, or the histograms, all in one."""

    name: str = ""
    value: int = 0
    histograms: _Histograms | None = None


class _Page(Struct):
    stats: list[_Stat]


async def mirror_of(config: GatewayConfig, experiment: str) -> Mirror | None:
    """What Envoy at `gateway.admin` counted. None: the experiment has no mirror."""
    settings = config.experiments[experiment].mirror
    if settings is None:
        return None
    prefix = f"cluster.{mirror_cluster_name(settings.pool, experiment)}."
    try:
        page = await asyncio.to_thread(_ask, config.gateway.admin, prefix)
        return Mirror(settings.pool, copies_in(page, prefix))
    except (OSError, http.client.HTTPException, msgspec.MsgspecError, ValueError) as error:
        _log.warning(
            "Envoy says nothing of a mirror", extra={"address": str(config.gateway.admin), "error": str(error)}
        )
        return Mirror(settings.pool, None)


def copies_in(page: bytes, prefix: str) -> Copies | None:
    """What Envoy's `/stats?format=json` has of the cluster whose statistics begin so; None if it has no such cluster.

    Raises msgspec.MsgspecError for what is no such page.
    """
    stats = msgspec.json.decode(page, type=_Page).stats
    counted = {stat.name.removeprefix(prefix): stat.value for stat in stats if stat.name.startswith(prefix)}
    if _COUNTED[0] not in counted:
        return None
    latency_ms: dict[str, float] = {}
    for histograms in (stat.histograms for stat in stats if stat.histograms is not None):
        for one in histograms.computed_quantiles:
            if one.name == prefix + _TIMED:
                latency_ms |= _percentiles(histograms.supported_quantiles, one)
    ended, sent, failed = (counted.get(name, 0) for name in _COUNTED)
    return Copies(ended, sent, failed, latency_ms)


def _percentiles(levels: list[float], found: _Quantiles) -> Mapping[str, float]:
    values = {level: value.get("cumulative") for level, value in zip(levels, found.values, strict=False)}
    return {name: value for name, level in _LEVELS.items() if (value := values.get(level)) is not None}


def _ask(admin: TcpAddress, prefix: str) -> bytes:
    pattern = f"^{prefix.replace('.', '[.]')}({'|'.join((*_COUNTED, _TIMED))})$"
    connection = http.client.HTTPConnection(admin.host, admin.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", f"/stats?format=json&filter={quote(pattern, safe='')}")
        answer = connection.getresponse()
        page = answer.read(_LIMIT_BYTES)
        if answer.status != http.HTTPStatus.OK:
            raise ValueError(f"status {answer.status}")
    finally:
        connection.close()
    return page
