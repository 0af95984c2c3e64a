"""The verifier at work, on a thread of its own. Few pairs ever wait: only those that passed the other gates."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from extproc.config.encoder import EncoderDevice
from extproc.errors import DependencyError
from extproc.inference.session import open_session
from extproc.inference.verifier.files import MODEL, TOKENIZER
from extproc.inference.verifier.graph import INPUTS, OUTPUT
from extproc.inference.verifier.tokens import PairTokenizer

NAME = "verifier"
_MOST_WAITING = 64
_log = logging.getLogger(__name__)


class LocalVerifier:
    """A `PairVerifier` in this process. Loading begins at once; made on a running event loop."""

    def __init__(self, folder: Path, device: EncoderDevice, threads: int) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=NAME)
        self._waiting = 0
        self._loaded = asyncio.get_running_loop().run_in_executor(self._thread, self._load, folder, device, threads)

    def _load(self, folder: Path, device: EncoderDevice, threads: int) -> tuple[Any, PairTokenizer]:
        return open_session(folder / MODEL, device, threads), PairTokenizer(folder / TOKENIZER)

    async def ready(self) -> None:
        """Raises DependencyError when it could not be loaded."""
        try:
            await self._loaded
        except ValueError as error:
            raise DependencyError(NAME, str(error)) from error

    async def same(self, one: str, other: str, deadline_s: float) -> float:
        if self._waiting >= _MOST_WAITING:
            raise DependencyError(NAME, f"{self._waiting} pairs wait already")
        session, tokenizer = await self._loaded
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(self._thread, _judged, session, tokenizer, one, other)
        work.add_done_callback(self._done)
        try:
            async with asyncio.timeout(deadline_s):
                return await work
        except TimeoutError:
            raise DependencyError(NAME, "it took too long") from None

    def _done(self, work: asyncio.Future[float]) -> None:
        self._waiting -= 1
        if not work.cancelled() and work.exception() is not None:
            _log.error("the verifier failed", extra={"error": type(work.exception()).__name__})

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown, True, cancel_futures=True)


def _judged(session: Any, tokenizer: PairTokenizer, one: str, other: str) -> float:
    """Both ways round, because the graph is not symmetric and a hit should not depend on who asked first."""
    rows = [tokenizer.pair(one, other), tokenizer.pair(other, one)]
    if rows[0] is None or rows[1] is None:
        return 0.0
    ids, types = (np.array([getattr(row, name) for row in rows], np.int64) for name in ("ids", "types"))
    feed = dict(zip(INPUTS, (ids, types, np.ones_like(ids)), strict=True))
    (same,) = session.run([OUTPUT], feed)
    return float(same.min())


def judge_all(session: Any, tokenizer: PairTokenizer, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """For measuring: as `same` would say, one after the other."""
    return [_judged(session, tokenizer, one, other) for one, other in pairs]
