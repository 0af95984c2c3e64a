"""An event loop on whose clock time passes only while everybody waits: what it says that something took is exact,
however busy the machine is.
"""

from __future__ import annotations

import asyncio
import selectors


class StillLoop(asyncio.SelectorEventLoop):
    """Its time jumps to the next timer when `grace_s` of real time brought nothing to read or write."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.grace_s = 5.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now_s


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: StillLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(self._loop.grace_s)
        if not ready:
            self._loop.now_s += timeout
        return ready
