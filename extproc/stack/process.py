"""One process of the local stack: started in its own group, logged to its own file, ended completely.

Must not know: which component it is.
"""

import contextlib
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from extproc.stack.guardian import Guardian, group_lives, signal_group

_POLL_S = 0.05
_KILL_POLL_S = 0.005


class NotReady(Exception):
    """A process, `name`, ended or its time was up before it was ready."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name} {message}")
        self.name = name


class Cancelled(Exception):
    """The stack is to stop while it starts."""


class Process:
    """A command that can be started, stopped and started again."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], log: pathlib.Path, guardian: Guardian
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._env = dict(env)
        self._guardian = guardian
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Also the number of its process group. None while it is not started."""
        return self._process.pid if self._process is not None else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs or is not started; negative is the number of the signal that ended it."""
        return self._process.poll() if self._process is not None else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guardian.watch(self._process.pid)

    def wait_ready(self, is_ready: Callable[[], bool], timeout_s: float, cancel: threading.Event) -> None:
        """Return when `is_ready` holds. Raises NotReady, Cancelled."""
        deadline_s = time.monotonic() + timeout_s
        while not is_ready():
            if self.exit_code is not None:
                raise NotReady(self.name, f"ended with {describe_exit(self.exit_code)} before it was ready")
            if time.monotonic() > deadline_s:
                raise NotReady(self.name, f"was not ready after {timeout_s:.0f} s")
            if cancel.wait(_POLL_S):
                raise Cancelled

    def stop(self, grace_s: float) -> None:
        """SIGTERM, and after `grace_s` SIGKILL for whatever of the group is still there. Again is harmless."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        # One that is paused could not even begin to end.
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL for the whole group. Again is harmless."""
        if self._process is None:
            return
        group = self._process.pid
        signal_group(group, signal.SIGKILL)
        self._process.wait()
        # Its children are not ours to wait for.
        while group_lives(group):
            time.sleep(_KILL_POLL_S)
        self._guardian.unwatch(group)
        self._process = None

    def pause(self) -> None:
        """Hang without dying, the whole group, until `resume`."""
        if self._process is not None:
            signal_group(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            signal_group(self._process.pid, signal.SIGCONT)

    def log_tail(self, lines: int = 20) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def describe_exit(code: int) -> str:
    """An exit code in words."""
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
