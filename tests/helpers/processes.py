"""What is left of processes: for tests which assert that nothing is."""

import os
import pathlib
import time
from collections.abc import Callable

import psutil

_POLL_S = 0.02


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    """Whether the condition came to hold in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
    return True


def processes_mentioning(text: str) -> list[psutil.Process]:
    """Processes, zombies apart, with `text` in their command line or environment; not this one."""
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _mentions(process, text)]


def shared_memory() -> set[str]:
    """The names in /dev/shm."""
    return {path.name for path in pathlib.Path("/dev/shm").iterdir()}


def _mentions(process: psutil.Process, text: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return any(text in word for word in process.cmdline()) or any(
            text in value for value in process.environ().values()
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
