"""A real Triton for a test module: installed once per machine, on free ports, gone without a trace at the end."""

import contextlib
import functools
import importlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx

from extproc.inference import minilm
from extproc.stack import triton

REPOSITORY = Path(__file__).resolve().parents[2] / "triton_models"
_READY_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class RunningTriton:
    ports: triton.TritonPorts
    process: subprocess.Popen[bytes]
    log: Path
    seconds_to_ready: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.http}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30)

    def metric(self, name: str) -> float:
        """One of our metrics, by its value on /metrics."""
        page = httpx.get(f"http://127.0.0.1:{self.ports.metrics}/metrics").text
        found = re.search(rf"^{name}\{{[^}}]*\}} (\S+)$", page, re.MULTILINE)
        assert found is not None, f"no metric {name}"
        return float(found[1])


@contextlib.contextmanager
def running(
    models: Sequence[str],
    log: Path,
    encoder: Path | None = None,
    *,
    repository: Path = REPOSITORY,
    backends: Mapping[str, Path] = {},
    ports: triton.TritonPorts | None = None,
) -> Iterator[RunningTriton]:
    """`encoder` is a directory with a model of the test's own instead of the real one; `backends` are backends in
    Python by name, each one file, beside the server's own."""
    install = triton.TritonInstall.ensure()
    encoder = encoder or minilm.build(minilm.default_folder()).model.parent
    ports = ports or triton.TritonPorts(*free_ports(3))
    argv, env = triton.triton_command(
        install,
        ports=ports,
        repository=repository,
        models=models,
        minilm_dir=encoder,
        exit_timeout_s=2,  # what a stream of a crashed model would use up
    )
    if backends:
        argv.append(f"--backend-directory={_backends(install, backends, log.with_name('backends'))}")
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        started = time.monotonic()
        _wait_until_ready(ports, process, log)
        yield RunningTriton(ports, process, log, time.monotonic() - started)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
            triton.remove_shared_memory(ports)


def _backends(install: triton.TritonInstall, more: Mapping[str, Path], folder: Path) -> Path:
    folder.mkdir()
    for own in install.backends.iterdir():
        (folder / own.name).symlink_to(own)
    for name, model in more.items():
        (folder / name).mkdir()
        (folder / name / "model.py").symlink_to(model)
    return folder


def _wait_until_ready(ports: triton.TritonPorts, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"Triton ended with {process.returncode}:\n{log.read_text(errors='replace')[-4000:]}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{ports.http}/v2/health/ready").status_code == httpx.codes.OK:
                return
        time.sleep(0.05)
    raise AssertionError(
        f"Triton was not ready within {_READY_TIMEOUT_S} s:\n{log.read_text(errors='replace')[-4000:]}"
    )


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago: Triton cannot listen on port 0 and say which it got."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def events(body: str) -> list[dict[str, Any]]:
    """The JSON documents of a /generate_stream body."""
    return [json.loads(line.removeprefix("data: ")) for line in body.split("\n\n") if line]


@functools.cache
def model_module(model: str, name: str) -> ModuleType:
    """A module that lies beside a model's model.py, found as Triton finds it: by its directory on the path."""
    folder = str(REPOSITORY / model / "1")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)
