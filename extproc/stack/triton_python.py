"""The Python that runs inside Triton's models. Owns: which interpreter fits, and its libraries.

Triton's Python backend embeds an interpreter through a stub compiled once per Python version, and that stub
needs NumPy 1: newer Pythons have no such NumPy, so the interpreter of this process will not always do. Where
no Python of this machine fits (or it comes without its shared library), a private copy of Debian's is
unpacked. Must not know: Triton's files, or which packages the models import.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from extproc.stack import artifact
from extproc.stack.apt import AptError, download_packages
from extproc.stack.home import home

VERSIONS = ("3.12", "3.11")
"""Those that a stub, NumPy 1 and a current onnxruntime exist for."""

_PRIVATE_COPIES = (("bookworm", "3.11"), ("noble", "3.12"))
_LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
# The C library must be the one of the program that embeds Python; all others may come along.
_NOT_UNPACKED = ("libc6_", "libgcc-s1_", "gcc-")
_PROBE = """
import json, sys, sysconfig
print(json.dumps(["%d.%d" % sys.version_info[:2], sys.base_prefix, sysconfig.get_config_var("LIBDIR")]))
"""
_PROBE_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class EmbeddedPython:
    version: str
    """Major and minor, as in `3.11`."""
    prefix: Path
    library_dir: Path

    @property
    def executable(self) -> Path:
        return self.prefix / "bin" / f"python{self.version}"


def find() -> EmbeddedPython:
    """This machine's first Python that fits, or a private copy. Raises ArtifactError."""
    for executable in _candidates():
        found = _probe(executable)
        if found is not None:
            return found
    return _private_copy()


def _candidates() -> Iterator[str]:
    yield sys.executable
    for version in VERSIONS:
        if found := shutil.which(f"python{version}"):
            yield found


def _probe(executable: str) -> EmbeddedPython | None:
    try:
        command = [executable, "-I", "-c", _PROBE]
        said = subprocess.run(command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=True).stdout
        version, prefix, folder = json.loads(said)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # a shim of a version that is not installed, for instance
    found = EmbeddedPython(version, Path(prefix), Path(folder))
    library = found.library_dir / f"libpython{version}.so.1.0"
    return found if version in VERSIONS and library.is_file() and found.executable.is_file() else None


def _private_copy() -> EmbeddedPython:
    failures = []
    for suite, version in _PRIVATE_COPIES:
        target = home() / f"python{version}"
        try:
            artifact.ensure(target, {"suite": suite}, functools.partial(_unpack, suite, version))
        except (AptError, subprocess.CalledProcessError) as error:
            failures.append(f"{suite}: {error}")
        else:
            return EmbeddedPython(version, target / "usr", target / _LIBRARIES)
    raise artifact.ArtifactError(
        f"Triton's models need Python {' or '.join(VERSIONS)} with its shared library (Debian: libpython3.x). "
        f"None is on this machine, and no private copy could be made: {'; '.join(failures)}"
    )


def _unpack(suite: str, version: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as downloads:
        for package in download_packages((f"libpython{version}", f"python{version}"), suite, Path(downloads) / "apt"):
            if not package.name.startswith(_NOT_UNPACKED):
                subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True, capture_output=True)  # noqa: S607
    # Some packages still say lib/ for what every current system keeps in usr/lib/.
    old = folder / "lib/x86_64-linux-gnu"
    for library in old.glob("*") if old.is_dir() else ():
        os.rename(library, folder / _LIBRARIES / library.name)
