"""When a running Envoy has taken up new clusters: it keeps them back until their servers' health was checked once.

Must not know: how the clusters reached Envoy.
"""

import http.client
import time
from collections.abc import Iterable

from extproc.config.address import TcpAddress

_TIMEOUT_S = 20.0
"""Longer than first health checks and names take. An Envoy that has refused the clusters is not waited for forever."""

_POLL_S = 0.05
_ANSWER_TIMEOUT_S = 5.0


def await_clusters(admin: TcpAddress, clusters: Iterable[str]) -> None:
    """Return when the Envoy at `admin` routes to all of `clusters`, or if none answers there.

    One that does not run, or is not to be reached from here, is not waited for.
    """
    missing = set(clusters)
    end_s = time.monotonic() + _TIMEOUT_S
    while missing and time.monotonic() < end_s:
        try:
            missing -= _active(admin)
        except (OSError, http.client.HTTPException):
            return
        if missing:
            time.sleep(_POLL_S)


def _active(admin: TcpAddress) -> set[str]:
    """The names of Envoy's clusters without those that are still warming."""
    connection = http.client.HTTPConnection(admin.host, admin.port, timeout=_ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/clusters")
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    return {line.split("::", 1)[0] for line in lines}
