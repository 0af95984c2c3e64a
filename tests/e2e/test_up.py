"""`extproc up` as a user runs it: it says what works, and however it ends, nothing of it is left."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest

from extproc.stack.ports import Ports, from_base
from tests.helpers.ports import free_base
from tests.helpers.processes import processes_mentioning, shared_memory, wait_until
from tests.helpers.stack import CONFIG

# One stack at a time, with the tests that share one.
pytestmark = pytest.mark.stack
END_TIMEOUT_S = 60.0


class Up:
    """A running `extproc up`, and what it printed."""

    def __init__(self, directory: pathlib.Path, *arguments: str) -> None:
        self.run_dir = directory / "run"
        self.config = directory / "gateway.yaml"
        shutil.copy(CONFIG, self.config)
        self.base = free_base()
        self.ports: Ports = from_base(self.base)
        self.output = directory / "output"
        command = [sys.executable, "-m", "extproc", "up", "--config", str(self.config)]
        environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*command, "--run-dir", str(self.run_dir), "--port-base", str(self.base), *arguments],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        return self.output.read_text()

    def wait_printed(self, text: str) -> None:
        arrived = wait_until(lambda: text in self.printed or self.process.poll() is not None, END_TIMEOUT_S)
        assert arrived, self.printed
        assert text in self.printed, self.printed

    def component(self, name: str) -> psutil.Process:
        """The process of a component, found by what only it has in its command line."""
        (found,) = [
            process for process in psutil.process_iter() if name in " ".join(_command_line(process))
            and str(self.run_dir) in " ".join(_command_line(process))
        ]  # fmt: skip
        return found

    def end(self) -> int:
        return self.process.wait(END_TIMEOUT_S)

    def assert_nothing_is_left(self) -> None:
        # All components have the run directory in their environment or arguments, Tritons their ports.
        assert wait_until(lambda: processes_mentioning(str(self.run_dir)) == [])
        assert wait_until(lambda: processes_mentioning(f"={self.ports.triton_a.http}") == [])
        assert list(self.ports.taken()) == []
        assert [name for name in shared_memory() if f"triton_{self.base}" in name] == []
        assert wait_until(lambda: list(self.run_dir.glob("*.sock")) == [])


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Callable[..., Up]]:
    with contextlib.ExitStack() as running:

        def run(*arguments: str) -> Up:
            up = Up(tmp_path, *arguments)
            running.callback(up.process.wait)
            running.callback(up.process.kill)
            return up

        yield run


def test_what_it_prints_works_and_ctrl_c_ends_everything(start: Callable[..., Up]) -> None:
    up = start("--logs")
    up.wait_printed("Ctrl-C stops everything")
    key = re.search(r"Bearer (sk-xp-\w+)", up.printed)
    model = re.search(r'"model": "([^"]+)"', up.printed)
    assert key is not None
    assert model is not None
    answer = httpx.post(
        f"http://127.0.0.1:{up.ports.gateway}/v1/chat/completions",
        headers={"authorization": f"Bearer {key[1]}"},
        json={"model": model[1], "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 4},
        timeout=30.0,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 4
    up.wait_printed("service  | ")
    up.config.write_text(CONFIG.read_text() + "nonsense: 1\n")
    up.wait_printed("the configuration in force stays")
    up.config.write_text(CONFIG.read_text().replace("log_level: info", "log_level: warning"))
    up.wait_printed(" in force\n")
    up.process.send_signal(signal.SIGINT)
    assert up.end() == 0
    up.assert_nothing_is_left()


def test_the_death_of_one_part_ends_all_and_is_explained(start: Callable[..., Up]) -> None:
    up = start()
    up.wait_printed("Ctrl-C stops everything")
    up.component("redis-server").kill()
    assert up.end() == 1
    assert "redis ended with signal SIGKILL" in up.printed
    assert "the end of its log" in up.printed
    up.assert_nothing_is_left()


def test_nothing_outlives_an_up_that_is_killed(start: Callable[..., Up]) -> None:
    up = start()
    up.wait_printed("Ctrl-C stops everything")
    up.process.kill()
    up.end()
    up.assert_nothing_is_left()


def test_a_termination_while_starting_leaves_nothing(start: Callable[..., Up]) -> None:
    up = start()
    up.wait_printed("triton-a")
    up.process.terminate()
    assert up.end() == 0
    up.assert_nothing_is_left()


def test_a_taken_port_is_said_before_anything_starts(start: Callable[..., Up]) -> None:
    base = free_base()
    with socket.create_server(("127.0.0.1", base + 10)):
        up = start("--port-base", str(base))
        assert up.end() == 1
    assert f"ports already in use: {base + 10}" in up.printed
    assert "Traceback" not in up.printed


def test_a_part_that_does_not_start_is_named_with_its_log(start: Callable[..., Up], tmp_path: pathlib.Path) -> None:
    (tmp_path / "run" / "redis" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "run" / "redis" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense")
    up = start()
    assert up.end() == 1
    assert "redis ended with exit code 1 before it was ready" in up.printed
    up.assert_nothing_is_left()
