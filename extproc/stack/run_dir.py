"""The directory of one running stack: sockets, logs, Redis's data, the secret of its keys.

Owns: its layout, that only one stack uses it, and the environment which its programs share. That environment
is written down in it, so that `extproc keys` reaches the same keys later. Must not know: the components.
"""

import fcntl
import json
import os
import pathlib
import secrets
import shutil
from typing import TextIO

from extproc.stack.home import home
from extproc.stack.ports import Ports

_SECRET_BYTES = 32


class InUse(Exception):
    """Another stack runs in this directory."""


def default_run_dir(port: int) -> pathlib.Path:
    """Where the stack of this gateway port keeps its state unless told otherwise."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return pathlib.Path(state).expanduser() / "extproc" / f"run-{port}"


def recorded_environment(path: pathlib.Path) -> dict[str, str]:
    """What `RunDir.environment` gave the last stack in this directory; empty if there was none."""
    try:
        recorded: dict[str, str] = json.loads((path / "environment.json").read_text())
    except FileNotFoundError:
        return {}
    return recorded


class RunDir:
    """A run directory held by this process. Raises InUse."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path.absolute()
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self._hold()
        for directory in (self.logs, self.redis_data):
            directory.mkdir(exist_ok=True)
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()

    @property
    def logs(self) -> pathlib.Path:
        return self.path / "logs"

    @property
    def redis_data(self) -> pathlib.Path:
        return self.path / "redis"

    @property
    def redis_socket(self) -> pathlib.Path:
        return self.path / "redis.sock"

    @property
    def envoy(self) -> pathlib.Path:
        """Envoy's generated configuration, several files."""
        return self.path / "envoy"

    @property
    def temporary(self) -> pathlib.Path:
        """For what programs put into TMPDIR: a killed one can't remove it itself."""
        return self.path / "tmp"

    def environment(self, ports: Ports, workers: int) -> dict[str, str]:
        """What gateway.yaml reads; REDIS_URL and EXTPROC_KEY_SECRET may be given from outside."""
        variables = {
            "EXTPROC_HOME": str(home()),
            "EXTPROC_RUN_DIR": str(self.path),
            "EXTPROC_PORT": str(ports.gateway),
            "EXTPROC_ENVOY_ADMIN_PORT": str(ports.gateway_admin),
            "EXTPROC_ADMIN_PORT": str(ports.service_admin),
            "EXTPROC_TRITON_A_HTTP_PORT": str(ports.triton_a.http),
            "EXTPROC_TRITON_A_GRPC_PORT": str(ports.triton_a.grpc),
            "EXTPROC_TRITON_A_METRICS_PORT": str(ports.triton_a.metrics),
            "EXTPROC_TRITON_B_HTTP_PORT": str(ports.triton_b.http),
            "EXTPROC_TRITON_B_GRPC_PORT": str(ports.triton_b.grpc),
            "EXTPROC_TRITON_B_METRICS_PORT": str(ports.triton_b.metrics),
            "EXTPROC_WORKERS": str(workers),
            "REDIS_URL": os.environ.get("REDIS_URL") or f"unix://{self.redis_socket}",
            "EXTPROC_KEY_SECRET": os.environ.get("EXTPROC_KEY_SECRET") or self._secret(),
        }
        _write_private(self.path / "environment.json", json.dumps(variables, indent=2) + "\n")
        return variables

    def release(self) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)
        self._lock.close()

    def _hold(self) -> TextIO:
        lock = (self.path / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise InUse(f"another stack runs in {self.path}") from None
        return lock

    def _secret(self) -> str:
        path = self.path / "key-secret"
        if not path.exists():
            _write_private(path, secrets.token_hex(_SECRET_BYTES))
        return path.read_text()


def _write_private(path: pathlib.Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
