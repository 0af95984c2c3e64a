"""The last one out: a small process that cleans up after a stack whose own process is gone.

Owns: what may be left behind by a process that was killed and could not do it itself: process groups
(Triton's model processes outlive their server) and files (shared memory, sockets). Knows no component.

The stack's process holds the only writing end of this one's standard input and says on it what there is
to clean. The end of that input is the end of that process, whatever killed it.
"""

import contextlib
import glob
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

_GRACE_S = 3.0
_POLL_S = 0.05


class Guardian:
    """The stack's side of it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, group: int) -> None:
        """Kill this process group at the end."""
        self._say(f"+{group}")

    def unwatch(self, group: int) -> None:
        """It is gone; its number may become someone else's."""
        self._say(f"-{group}")

    def remove(self, pattern: str) -> None:
        """Remove the files that match at the end."""
        self._say(f"*{pattern}")

    def close(self) -> None:
        """Have everything cleaned now, and wait for it."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()

    def _say(self, line: str) -> None:
        if self._process.stdin is None:
            return
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()


def main() -> None:
    """The guardian's side of it."""
    # A machine that shuts down tells everyone; this one's work begins when the stack is gone.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    groups: set[int] = set()
    patterns: list[str] = []
    for line in sys.stdin:
        action, subject = line[0], line[1:].rstrip("\n")
        if action == "+":
            groups.add(int(subject))
        elif action == "-":
            groups.discard(int(subject))
        elif action == "*":
            patterns.append(subject)
    _end(groups)
    for pattern in patterns:
        for path in glob.glob(pattern):
            with contextlib.suppress(OSError):
                pathlib.Path(path).unlink()


def _end(groups: Iterable[int]) -> None:
    remaining = [group for group in groups if signal_group(group, signal.SIGTERM)]
    deadline_s = time.monotonic() + _GRACE_S
    while remaining and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
        remaining = [group for group in remaining if group_lives(group)]
    for group in remaining:
        signal_group(group, signal.SIGKILL)


def signal_group(group: int, number: int) -> bool:
    """Signal every process of a group; false if there is none."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def group_lives(group: int) -> bool:
    """Whether a process of this group still runs.

    A signal can't tell: it also reaches the dead that nobody has reaped, for ever so in a container whose first
    process doesn't.
    """
    return any(_runs_in(stat, group) for stat in pathlib.Path("/proc").glob("[0-9]*/stat"))


def _runs_in(stat: pathlib.Path, group: int) -> bool:
    try:
        # pid (name) state parent group ..., where the name may contain anything
        state, _, of_group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return int(of_group) == group and state not in "ZX"


if __name__ == "__main__":
    main()
