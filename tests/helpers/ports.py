"""Free ports for a whole stack, held against other test processes for as long as this one lives."""

import fcntl
import pathlib
import tempfile
from typing import TextIO

from extproc.stack import ports

_FIRST = 20000
_LAST = 32000  # where the kernel's ephemeral ports begin on Linux, outgoing connections can't take ours
_held: list[TextIO] = []


def free_base() -> int:
    """A base for `ports.from_base` with nothing on any of its ports."""
    directory = pathlib.Path(tempfile.gettempdir()) / "extproc-test-ports"
    directory.mkdir(exist_ok=True)
    for base in range(_FIRST, _LAST, 2 * ports.SPAN):
        lock = (directory / str(base)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        if any(ports.from_base(base).taken()):
            lock.close()
            continue
        _held.append(lock)
        return base
    raise RuntimeError(f"no free ports between {_FIRST} and {_LAST}")
