"""That a process which was told to end does end, whatever hangs: a task, a thread, a disk, a lock of another process.

Must not know: what there is to do before the end.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
from collections.abc import Iterable
from typing import Any

WORKER_END_S = 3.0
"""A worker has so long for what comes after its last exchange."""

SERVICE_END_S = 8.0
"""And the service, after its last worker."""

_log = logging.getLogger(__name__)


def end_within(limit_s: float) -> None:
    """From now on the process lives for at most `limit_s`.

    Is it still there then, it writes to standard error where its threads stand, and is gone, with exit code 1. The
    timer is the interpreter's own, which needs no event loop and waits for no lock of ours; a second call begins anew.
    """
    faulthandler.dump_traceback_later(limit_s, exit=True)


async def finished(what: str, tasks: Iterable[asyncio.Future[Any]], limit_s: float) -> bool:
    """Whether all were over within `limit_s`; those that are not are cancelled, and left to themselves."""
    tasks = tuple(tasks)
    if not tasks:
        return True
    _, late = await asyncio.wait(tasks, timeout=limit_s)
    for task in late:
        task.cancel()
    if late:
        _log.error("the end does not wait for it", extra={"what": what, "late": len(late), "after_s": limit_s})
    return not late
