"""Free ports for a whole stack, held against other test processes for as long as this one lives."""

import fcntl
import os
import pathlib
import tempfile

from extproc.stack import ports

_FIRST = 20000
_LAST = 32000  # where the kernel's ephemeral ports begin on Linux, outgoing connections can't take ours


def free_base() -> int:
    """A base for `ports.from_base` with nothing on any of its ports."""
    directory = pathlib.Path(tempfile.gettempdir()) / "extproc-test-ports"
    directory.mkdir(exist_ok=True)
    for base in range(_FIRST, _LAST, 2 * ports.SPAN):
        lock = os.open(directory / str(base), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        if _is_ours(lock) and not any(ports.from_base(base).taken()):
            return base  # `lock` stays open, and with it held, until this process ends
        os.close(lock)
    raise RuntimeError(f"no free ports between {_FIRST} and {_LAST}")


def _is_ours(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
