"""Processes of the stack end completely: with their children, when paused, and when their owner is killed."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator

import pytest

from extproc.stack.guardian import Guardian
from extproc.stack.process import Cancelled, NotReady, Process
from tests.helpers.processes import processes_mentioning, wait_until

# A shell with a child in the background, both deaf to SIGTERM unless told otherwise.
STUBBORN = "trap '' TERM; sleep 60 & touch $READY; sleep 60"
OBEDIENT = "sleep 60 & child=$!; trap 'kill $child; exit 3' TERM; touch $READY; wait"


@pytest.fixture
def guardian() -> Iterator[Guardian]:
    guardian = Guardian()
    yield guardian
    guardian.close()


class Shell:
    """A shell script as a process of the stack, recognisable by a mark in its environment."""

    def __init__(self, script: str, directory: pathlib.Path, guardian: Guardian) -> None:
        self.mark = f"mark-{uuid.uuid4()}"
        self.ready = directory / "ready"
        environment = {"MARK": self.mark, "READY": str(self.ready), "PATH": os.environ["PATH"]}
        self.process = Process("shell", ("sh", "-c", script), environment, directory / "log", guardian)

    def start(self) -> None:
        self.process.start()
        self.process.wait_ready(self.ready.exists, 10.0, threading.Event())

    def alive(self) -> bool:
        return bool(processes_mentioning(self.mark))


def test_stop_lets_it_end_by_itself(tmp_path: pathlib.Path, guardian: Guardian) -> None:
    shell = Shell(OBEDIENT, tmp_path, guardian)
    shell.start()
    shell.process.stop(grace_s=10.0)
    assert not shell.alive()
    shell.process.stop(grace_s=10.0)


def test_stop_kills_what_does_not_listen_children_too(tmp_path: pathlib.Path, guardian: Guardian) -> None:
    shell = Shell(STUBBORN, tmp_path, guardian)
    shell.start()
    shell.process.stop(grace_s=0.1)
    assert not shell.alive()


def test_stop_ends_a_paused_one(tmp_path: pathlib.Path, guardian: Guardian) -> None:
    shell = Shell(OBEDIENT, tmp_path, guardian)
    shell.start()
    shell.process.pause()
    shell.process.stop(grace_s=10.0)
    assert not shell.alive()


def test_kill_and_start_again(tmp_path: pathlib.Path, guardian: Guardian) -> None:
    shell = Shell(OBEDIENT, tmp_path, guardian)
    shell.start()
    first = shell.process.pid
    shell.process.kill()
    assert shell.process.exit_code is None, "an end that was asked for is no death"
    shell.start()
    assert shell.process.pid != first
    shell.process.kill()


def test_one_that_ends_too_early_is_named(tmp_path: pathlib.Path, guardian: Guardian) -> None:
    shell = Shell("echo no luck; exit 7", tmp_path, guardian)
    with pytest.raises(NotReady, match="shell ended with exit code 7 before it was ready"):
        shell.start()
    assert shell.process.log_tail() == "no luck"
    assert shell.process.exit_code == 7


def test_one_that_is_never_ready(tmp_path: pathlib.Path, guardian: Guardian) -> None:
    shell = Shell(STUBBORN, tmp_path, guardian)
    shell.process.start()
    with pytest.raises(NotReady, match="not ready after 0 s"):
        shell.process.wait_ready(lambda: False, 0.2, threading.Event())
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        shell.process.wait_ready(lambda: False, 10.0, cancel)
    shell.process.kill()


OWNER = """
import os, pathlib, sys, threading, time
from extproc.stack.guardian import Guardian
from extproc.stack.process import Process

directory = pathlib.Path(sys.argv[1])
guardian = Guardian()
guardian.remove(str(directory / "left*"))
(directory / "left-behind").touch()
environment = {"MARK": sys.argv[2], "READY": str(directory / "ready"), "PATH": os.environ["PATH"]}
process = Process("shell", ("sh", "-c", sys.argv[3]), environment, directory / "log", guardian)
process.start()
process.wait_ready((directory / "ready").exists, 10.0, threading.Event())
print("started", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("script", [OBEDIENT, STUBBORN], ids=["obedient", "stubborn"])
def test_nothing_outlives_a_killed_owner(tmp_path: pathlib.Path, script: str) -> None:
    mark = f"mark-{uuid.uuid4()}"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), mark, script], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    with owner.stdout:
        assert owner.stdout.readline() == "started\n"
        # The owner itself has the mark in its arguments, the shell and its child in their environment.
        assert len(processes_mentioning(mark)) >= 3
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert wait_until(lambda: not processes_mentioning(mark))
    assert wait_until(lambda: not (tmp_path / "left-behind").exists())
