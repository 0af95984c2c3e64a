"""One Triton Inference Server on this machine: its installation and its command line.

Owns: the server unpacked from a pinned wheel, the packages its models import, how it is called, and what it
leaves behind. Must not know: what the models compute, nor who starts and stops the process.
"""

import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from extproc.stack import artifact, triton_python
from extproc.stack.artifact import Progress, Wheel
from extproc.stack.home import home
from extproc.stack.triton_python import EmbeddedPython

WHEEL = Wheel(
    "nvidia-pytriton",
    "0.7.0",
    "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df",
)
LOCK = Path(__file__).resolve().parents[2] / "requirements" / "triton.txt"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
_SERVER = "pytriton/tritonserver"
_LIBRARIES = "nvidia_pytriton.libs"
_ENVIRONMENT = "python"
_LAYOUT = "1"  # raise it when _install changes what it makes


@dataclass(frozen=True, slots=True)
class TritonInstall:
    root: Path
    python: EmbeddedPython

    @classmethod
    def ensure(cls, root: Path | None = None, *, progress: Progress = artifact.silent) -> "TritonInstall":
        """Unpack the server and install its models' packages, unless both are there. Raises ArtifactError."""
        root = root or home() / "triton"
        python = triton_python.find()
        identity = {
            "wheel": f"{WHEEL} {WHEEL.sha256}",
            "layout": _LAYOUT,
            "packages": hashlib.sha256(LOCK.read_bytes()).hexdigest(),
            "python": f"{python.version} {python.prefix}",
        }
        artifact.ensure(root, identity, lambda folder: _install(folder, python, progress))
        progress("Triton ready", 1.0)
        return cls(root, python)

    @property
    def server(self) -> Path:
        return self.root / _SERVER / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        return self.root / _SERVER / "backends"

    def environment(self) -> dict[str, str]:
        """This process's own, with Triton's libraries and its models' Python in place of ours.

        The embedded interpreter ignores every PYTHON* variable. It finds itself by looking for `python3` on
        PATH, and takes the virtual environment around that for its own.
        """
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PYTHON") and name not in {"LD_LIBRARY_PATH", "VIRTUAL_ENV"}
        }
        return inherited | {
            "LD_LIBRARY_PATH": f"{self.root / _LIBRARIES}:{self.python.library_dir}",
            "PATH": f"{self.root / _ENVIRONMENT / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        }


@dataclass(frozen=True, slots=True)
class TritonPorts:
    http: int
    grpc: int
    metrics: int


def triton_command(
    install: TritonInstall,
    *,
    ports: TritonPorts,
    repository: Path,
    models: Sequence[str],
    minilm_dir: Path,
    http_threads: int = 8,
    exit_timeout_s: int = 10,
) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a server on loopback that logs to stderr and stops at SIGTERM.

    `minilm_dir` is the directory that `extproc.inference.minilm.build` fills. After the process has gone,
    however it went, call `remove_shared_memory` with the same ports.
    """
    options: Mapping[str, object] = {
        "model-repository": repository,
        "backend-directory": install.backends,
        "model-control-mode": "explicit",
        "http-address": "127.0.0.1",
        "http-port": ports.http,
        "http-thread-count": http_threads,
        "grpc-address": "127.0.0.1",
        "grpc-port": ports.grpc,
        "metrics-address": "127.0.0.1",
        "metrics-port": ports.metrics,
        "allow-gpu-metrics": "false",
        "backend-config": f"python,shm-region-prefix-name={shared_memory_prefix(ports)}",
        "exit-timeout-secs": exit_timeout_s,
    }
    argv = [str(install.server), *(f"--{name}={value}" for name, value in options.items())]
    argv += [f"--load-model={model}" for model in models]
    return argv, install.environment() | {"EXTPROC_MINILM_DIR": str(minilm_dir)}


def shared_memory_prefix(ports: TritonPorts) -> str:
    """Servers side by side must not share these names, and only one can listen on a port."""
    return f"extproc_triton_{ports.http}_"


def remove_shared_memory(ports: TritonPorts) -> None:
    """Remove what a killed server, or a killed model, left in shared memory."""
    for region in _SHARED_MEMORY.glob(f"{shared_memory_prefix(ports)}*"):
        region.unlink(missing_ok=True)


def _install(folder: Path, python: EmbeddedPython, progress: Progress) -> None:
    with tempfile.TemporaryDirectory() as downloads:
        progress(f"downloading {WHEEL}", 0.0)
        wheel = artifact.fetch(WHEEL, Path(downloads))
        progress("unpacking Triton", 0.4)
        _unpack(wheel, folder, python.version)
    progress("installing the models' packages", 0.6)
    _make_environment(folder / _ENVIRONMENT, python)


def _unpack(wheel: Path, folder: Path, python_version: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        wanted = (
            f"{_SERVER}/",
            f"{_LIBRARIES}/",
            f"{WHEEL.name.replace('-', '_')}-{WHEEL.version}.dist-info/licenses/",
        )
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith(wanted)])
    server = folder / _SERVER
    stubs = server / "python_backend_stubs"
    # Here the stub finds its libraries by itself: they are looked up relative to it.
    stub = shutil.move(stubs / python_version / "triton_python_backend_stub", server / "backends" / "python")
    shutil.rmtree(stubs)
    for program in (Path(stub), server / "bin" / "tritonserver"):
        program.chmod(0o755)  # zip archives made by pip's tools carry no modes


def _make_environment(folder: Path, python: EmbeddedPython) -> None:
    """A virtual environment by hand: for another Python than ours if need be, and it may be moved.

    Wheels only, every file by its hash.
    """
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python3").symlink_to(python.executable)
    (folder / "pyvenv.cfg").write_text(f"home = {python.executable.parent}\n", encoding="utf-8")
    packages = folder / "lib" / f"python{python.version}" / "site-packages"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command += ["--target", str(packages), "--python-version", python.version, "--only-binary=:all:"]
    command += ["--require-hashes", "--requirement", str(LOCK)]
    artifact.run(command, "could not install the packages that Triton's models need")
