"""Whether a request to a pool would arrive at a server that has its model, as the Envoy beside this worker sees it.

It is the pool's own health check, asked through Envoy: 200 means that Envoy counts a server as healthy and that the
model is ready there. Must not know: who waits for the answer.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from extproc.errors import DependencyError
from extproc.fallback import STAMP
from extproc.model_mesh import MeshModel
from extproc.routing.pool_calls import PoolCalls

_TIMEOUT_S = 1.0


async def arrives(calls: PoolCalls, model: MeshModel) -> bool:
    """Never raises: whoever can't be asked lets nothing through."""
    path = f"/v2/models/{quote(model.model, safe='')}/ready"
    try:
        async with asyncio.timeout(_TIMEOUT_S), calls.ask("GET", path, {STAMP: model.pool}, b"") as answer:
            return answer.status == 200
    except (DependencyError, TimeoutError):
        return False
