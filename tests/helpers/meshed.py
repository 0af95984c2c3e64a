"""Gateways before one real Triton that starts empty: a repository of small models that load at the test's pace, fail to
load, or are loaded only when a request needs them.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import threading

import httpx

from extproc.inference import minilm
from extproc.stack import triton
from extproc.stack.guardian import Guardian
from extproc.stack.process import Process
from tests.helpers.processes import wait_until
from tests.helpers.triton import REPOSITORY, free_ports

_READY_TIMEOUT_S = 30.0
_STOP_GRACE_S = 10.0
# Read when the model is loaded, from a file beside its directory.
_ON_LOAD = """
import pathlib as _pathlib, time as _time
_said = _pathlib.Path("{said}")
_time.sleep(float(_said.read_text()) if _said.read_text() != "broken" else 0)
if _said.read_text() == "broken":
    raise RuntimeError("the weights are not there")
"""


class EmptyTriton:
    """Started by its constructor with nothing loaded; close it. Its models are copies of `demo_llm`."""

    def __init__(self, directory: pathlib.Path, *models: str) -> None:
        directory.mkdir()
        self._directory = directory
        for model in models:
            self._make(model)
        self.ports = triton.TritonPorts(*free_ports(3))
        self._guardian = Guardian()
        argv, env = triton.triton_command(
            triton.TritonInstall.ensure(),
            ports=self.ports,
            repository=directory / "models",
            models=(),
            minilm_dir=minilm.default_folder(),
            exit_timeout_s=2,
        )
        self.log = directory / "triton.log"
        self._process = Process("triton", tuple(argv), env, self.log, self._guardian)
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.http}"

    def start(self) -> None:
        self._process.start()
        self._process.wait_ready(self._is_ready, _READY_TIMEOUT_S, threading.Event())

    def stop(self) -> None:
        self._process.stop(_STOP_GRACE_S)
        triton.remove_shared_memory(self.ports)

    def loading(self, model: str, how: str) -> None:
        """From now on a load of this model takes `how` seconds, or fails (`broken`)."""
        (self._directory / f"{model}.said").write_text(how)

    def loaded(self) -> set[str]:
        """What is ready there."""
        index = httpx.post(f"{self.url}/v2/repository/index", content=b"{}", timeout=10).json()
        return {one["name"] for one in index if one.get("state") == "READY"}

    def states(self) -> dict[str, str]:
        """By model, as its index has it; each has one version."""
        index = httpx.post(f"{self.url}/v2/repository/index", content=b"{}", timeout=10).json()
        return {one["name"]: one.get("state", "") for one in index}

    def loads(self, model: str) -> int:
        """How often it was loaded, by the server's own log."""
        return self.log.read_text(errors="replace").count(f"successfully loaded '{model}'")

    def empty(self) -> None:
        """Unload all, behind everybody's back."""

        def is_empty() -> bool:
            for model in self.loaded():
                httpx.post(f"{self.url}/v2/repository/models/{model}/unload", content=b"{}", timeout=10)
            return not set(self.states().values()) & {"READY", "LOADING", "UNLOADING"}

        assert wait_until(is_empty, _READY_TIMEOUT_S)

    def close(self) -> None:
        self.stop()
        self._guardian.close()

    def _make(self, name: str) -> None:
        model = self._directory / "models" / name
        shutil.copytree(REPOSITORY / "demo_llm", model, ignore=shutil.ignore_patterns("__pycache__"))
        config = model / "config.pbtxt"
        config.write_text(config.read_text().replace('name: "demo_llm"', f'name: "{name}"'))
        self.loading(name, "0")
        code, said = model / "1" / "model.py", self._directory / f"{name}.said"
        text = code.read_text()
        begin = text.index("class TritonPythonModel")
        code.write_text(text[:begin] + _ON_LOAD.format(said=said) + "\n\n" + text[begin:])

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/v2/health/live", timeout=5).status_code == 200
        return False
