"""The real Prometheus and promtool: those on PATH, or a private copy of Debian's packages."""

import json
import pathlib
import shutil
import subprocess
import tempfile
import threading
import urllib.parse
import urllib.request
from typing import Any

import pytest

from extproc.stack import artifact
from extproc.stack.apt import AptError, download_packages
from extproc.stack.guardian import Guardian
from extproc.stack.home import home
from extproc.stack.probe import answers_ok
from extproc.stack.process import Process
from tests.helpers import ports

_IDENTITY = {"package": "prometheus", "suite": "trixie", "revision": "1"}
_WANTED = ("prometheus_", "promtool_", "libc6_")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_START_TIMEOUT_S = 20.0


def command(program: str) -> tuple[str, ...]:
    """How to call `prometheus` or `promtool`. Skips the test where there is none to be had."""
    on_path = shutil.which(program)
    if on_path is not None:
        return (on_path,)
    root = home() / "prometheus"
    try:
        artifact.ensure(root, _IDENTITY, _unpack)
    except (AptError, OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no {program} on PATH, and no private copy of it: {error}")
    libraries = root / _LIBRARIES
    return (str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries), str(root / "usr/bin" / program))


def promtool(*arguments: str) -> str:
    """What it says. Raises AssertionError when it is not content."""
    result = subprocess.run([*command("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


class PrometheusServer:
    """Started by its constructor; close it. `config` is its configuration file."""

    def __init__(self, directory: pathlib.Path, config: pathlib.Path) -> None:
        self._address = f"127.0.0.1:{ports.free_base()}"
        self._guardian = Guardian()
        options = (
            f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address={self._address}", "--enable-feature=exemplar-storage", "--log.level=warn",
        )  # fmt: skip
        log = directory / "prometheus.log"
        self._process = Process("prometheus", (*command("prometheus"), *options), {}, log, self._guardian)
        self._process.start()
        host, port = self._address.split(":")
        self._process.wait_ready(lambda: answers_ok(host, int(port), "/-/ready"), _START_TIMEOUT_S, threading.Event())

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series that an expression has now. Raises HTTPError for one that is none."""
        result: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return result

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of one of its API's answers."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def close(self) -> None:
        self._process.stop(5.0)
        self._guardian.close()


def _unpack(root: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(prefix="extproc-apt-") as work_dir:
        for package in download_packages(("prometheus",), _IDENTITY["suite"], pathlib.Path(work_dir)):
            if package.name.startswith(_WANTED):
                subprocess.run(["dpkg-deb", "-x", package, root], check=True, capture_output=True)
