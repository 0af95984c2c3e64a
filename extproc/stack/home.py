"""Where artifacts that are built or unpacked once live, and how two processes avoid building one twice.

Must not know: what the artifacts are.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

_CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


def home() -> pathlib.Path:
    """EXTPROC_HOME; else `.local` of the checkout; else the user's cache directory."""
    if given := os.environ.get("EXTPROC_HOME"):
        return pathlib.Path(given).expanduser().absolute()
    if (_CHECKOUT / "pyproject.toml").is_file():
        return _CHECKOUT / ".local"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(cache).expanduser() / "extproc"


@contextlib.contextmanager
def building(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Build a directory atomically: yields an empty one beside `target` which becomes `target` at the end."""
    fresh = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield fresh
        fresh.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def locked(target: pathlib.Path) -> Iterator[None]:
    """Hold the right to build `target`, across processes; the kernel lets go when this process dies.

    Who waited here looks again whether `target` is there before building it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
