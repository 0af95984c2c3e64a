"""What every call of the encoder has, wherever it runs: a deadline, its failures as EncoderError, and its metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from extproc.inference.failure import EncoderError, Reason
from extproc.telemetry.encoder_metrics import EncoderMetrics


@contextlib.asynccontextmanager
async def call(metrics: EncoderMetrics, now_s: Callable[[], float], deadline_s: float) -> AsyncIterator[None]:
    """Bound what is awaited within, and count how it ends. Raises EncoderError."""
    began_s = now_s()
    try:
        if deadline_s <= 0:
            raise EncoderError(Reason.DEADLINE, "no time is left")
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError:
        metrics.failed(Reason.DEADLINE)
        raise EncoderError(Reason.DEADLINE, "it took too long") from None
    except EncoderError as error:
        metrics.failed(error.reason)
        raise
    metrics.took(now_s() - began_s)
