"""One vector for a question: the embedding of its only window, or the mean of several, scaled to length one."""

from __future__ import annotations

import numpy as np

from extproc.policies.scan import Scan


async def of_question(scan: Scan, question: str) -> bytes | None:
    """384 little-endian float32; None where the encoder's budget did not reach all of the question.

    Raises DependencyError when the encoder failed.
    """
    (scanned,) = await scan.results([question])
    if not scanned.complete or not scanned.windows:
        return None
    if len(scanned.windows) == 1:
        return scanned.windows[0].encoding.embedding
    mean = np.mean([np.frombuffer(one.encoding.embedding, "<f4") for one in scanned.windows], axis=0)
    scaled: bytes = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype("<f4").tobytes()
    return scaled
