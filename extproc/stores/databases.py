"""Compiled patterns on disk, so that a worker's start takes no seconds for what an earlier one has made.

Owns the files: whose they must be, that none is read half written or damaged, and that of several processes that want
the same one makes it. Must not know: what is in a database, or whether it fits this machine (its name says so).

A database is code to the library that runs it. So a file counts only if nobody but its owner can have written it, and
that is this user or root.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

_FOLDER = "databases"
_SUFFIX = ".hsdb"
_DIGEST_BYTES = hashlib.sha256().digest_size
_LIMIT_BYTES = 64 * 1024 * 1024
_MOST_FILES = 32
_log = logging.getLogger(__name__)


def databases_of(environment: Mapping[str, str], run_dir: str) -> KeptDatabases:
    """Where they may be: EXTPROC_HOME, the user's cache directory, and for this one start the service's own."""
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    homes = [environment.get("EXTPROC_HOME"), str(Path(cache) / "extproc"), run_dir]
    return KeptDatabases([Path(home).expanduser().absolute() / _FOLDER for home in homes if home])


class KeptDatabases:
    """Looks in every folder; keeps what is new in the first that takes it."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def obtain(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What is kept under a name; else what `make` gives, kept if that is possible. Blocks while another process
        makes one. A file that is damaged, or might be somebody else's, is as good as none."""
        found = self._found(name)
        if found is not None:
            return found
        with self._writable() as folder:
            found = self._found(name)  # by who had the lock before us
            if found is not None:
                return found
            made = make()
            if folder is not None:
                _keep(folder, name, made)
            return made

    def _found(self, name: str) -> bytes | None:
        return next((data for folder in self._folders if (data := _read(folder / f"{name}{_SUFFIX}"))), None)

    @contextlib.contextmanager
    def _writable(self) -> Iterator[Path | None]:
        """The folder to write to, locked against other processes; None where there is none."""
        for folder in self._folders:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield folder
            finally:
                os.close(descriptor)  # and with it the lock
            return
        yield None


def _read(path: Path) -> bytes | None:
    """A file's content behind its digest; None if it isn't there, isn't whole, or isn't ours."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            facts = os.fstat(file.fileno())
            private = stat.S_ISREG(facts.st_mode) and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if not private or facts.st_uid not in (0, os.geteuid()) or facts.st_size > _LIMIT_BYTES:
                return None
            digest, data = file.read(_DIGEST_BYTES), file.read()
    except OSError:
        return None
    return data if data and hashlib.sha256(data).digest() == digest else None


def _keep(folder: Path, name: str, data: bytes) -> None:
    """All of it or nothing; the oldest go, where there are many."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as file:  # mkstemp's mode is 0600
            try:
                file.write(hashlib.sha256(data).digest() + data)
                file.flush()
                os.replace(file.name, folder / f"{name}{_SUFFIX}")
            except OSError:
                os.unlink(file.name)
                raise
        for old in sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)[:-_MOST_FILES]:
            old.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("compiled patterns can't be kept", extra={"folder": str(folder), "reason": str(error)})
