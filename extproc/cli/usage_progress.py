"""A progress bar for a terminal, shown only when work takes longer than a moment. Must not know: the work."""

import sys
import time
from types import TracebackType

_PATIENCE_S = 1.0
_REDRAW_S = 0.1
_WIDTH = 30


class Progress:
    """Open it with `with`; away from a terminal it says nothing. Needs no more than the standard library."""

    def __init__(self, total: int) -> None:
        self._total = max(total, 1)
        self._done = 0
        self._next_s = time.monotonic() + _PATIENCE_S
        self._shown = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() < self._next_s or not sys.stderr.isatty():
            return
        self._next_s = time.monotonic() + _REDRAW_S
        self._shown = True
        share = min(self._done / self._total, 1.0)
        bar = "#" * round(share * _WIDTH)
        sys.stderr.write(f"\r[{bar:<{_WIDTH}}] {share:4.0%}  {self._done:,} records")
        sys.stderr.flush()
