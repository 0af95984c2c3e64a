"""Redis >= 8 for the local stack: the one on PATH, or a private copy of Debian's packages.

Owns: finding the server, unpacking it without touching the system, its command line, its readiness.
Must not know: what is stored in it.

The private copy takes the mirror and the keyring from the machine's own apt sources, resolves
`redis-tools` against an empty package database (so that the libraries come along, libc included), and
runs the server through that copy's own loader. In Debian the server is the binary `redis-check-rdb` of
`redis-tools`, which decides by the name that it is called with what it is.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile

from extproc.stack import artifact
from extproc.stack.apt import AptError, download_packages
from extproc.stack.home import home

OLDEST_MAJOR = 8
_SUITE = "trixie"
_IDENTITY = {"package": "redis-tools", "suite": _SUITE, "revision": "1"}
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_PROBE_TIMEOUT_S = 10.0


class RedisMissing(artifact.ArtifactError):
    """There is no Redis >= 8 to be had on this machine; the message says what was tried."""


def ensure_server() -> tuple[str, ...]:
    """How to call redis-server: the start of a command line. Raises RedisMissing."""
    on_path = shutil.which("redis-server")
    if on_path is not None and _is_recent((on_path,)):
        return (on_path,)
    return _private_server(home() / "redis")


def server_arguments(socket_path: pathlib.Path, data_dir: pathlib.Path) -> tuple[str, ...]:
    """Listen on a Unix socket alone, and keep what is written in `data_dir`."""
    return (
        *("--port", "0", "--unixsocket", str(socket_path), "--unixsocketperm", "700"),
        *("--dir", str(data_dir), "--appendonly", "yes", "--save", ""),
        *("--daemonize", "no", "--loglevel", "notice"),
    )


def is_ready(socket_path: pathlib.Path, timeout_s: float = 1.0) -> bool:
    """Whether the server answers; false while it loads its data."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(socket_path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _private_server(root: pathlib.Path) -> tuple[str, ...]:
    try:
        artifact.ensure(root, _IDENTITY, _unpack)
    except (AptError, OSError, subprocess.CalledProcessError) as error:
        raise RedisMissing(
            f"no redis-server >= {OLDEST_MAJOR} on PATH, and no private copy of it: {error}. "
            "Install Redis 8, or give REDIS_URL."
        ) from error
    command = _command(root)
    if not _is_recent(command):
        raise RedisMissing(f"the Redis unpacked in {root} does not run; remove that directory and try again")
    return command


def _unpack(root: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(prefix="extproc-apt-") as work_dir:
        for package in download_packages(("redis-tools",), _SUITE, pathlib.Path(work_dir)):
            subprocess.run(["dpkg-deb", "-x", package, root], check=True, capture_output=True)  # noqa: S607


def _command(root: pathlib.Path) -> tuple[str, ...]:
    libraries = root / _LIBRARIES
    loader = (str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries))
    return (*loader, "--argv0", "redis-server", str(root / "usr/bin/redis-check-rdb"))


def _is_recent(command: tuple[str, ...]) -> bool:
    try:
        answer = subprocess.run(
            [*command, "--version"],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = re.search(r"\bv=(\d+)\.", answer.stdout)
    return version is not None and int(version[1]) >= OLDEST_MAJOR
