"""Lines that wait on disk to be carried elsewhere: written by several processes, read by one, bounded.

Owns the files and who may remove them. Must not know: what the lines say, or where they go.

A line is in the kernel's hands when `append` returns, so it outlives the process that wrote it. Each writer has one
segment open and holds a lock on it, which ends with the process however it dies: a segment that can be locked has
nobody who writes to it, and is removed once it has been read. How far a segment has been read stands in a file beside
it, so that a reader which dies goes on from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

SPOOL_DIR = "EXTPROC_SPOOL_DIR"
"""The environment variable with the directory that a supervisor gives its workers; without it nothing is spooled."""

SEGMENT_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
_FULL_RECHECK_S = 1.0
_SUFFIX = ".jsonl"
_log = logging.getLogger(__name__)


class SpoolWriter:
    """Appends lines to segments of its own. Never raises for what the disk does: it says whether the line is kept."""

    def __init__(
        self, directory: Path, writer: str, limit_bytes: int, refused: Callable[[], None] = lambda: None
    ) -> None:
        self._directory = directory
        self._writer = writer
        self._limit_bytes = limit_bytes
        self._refused = refused
        self._descriptor: int | None = None
        self._size_bytes = 0
        self._refusing_until_s = 0.0
        self._refusing = False

    def append(self, line: bytes) -> bool:
        """Keep a line, its newline included; False, and `refused` is told, if there is no room for it, or no way."""
        if not self._append(line):
            self._refused()
            return False
        return True

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _append(self, line: bytes) -> bool:
        if self._refusing and time.monotonic() < self._refusing_until_s:
            return False
        try:
            kept = self._write(line)
            self._note(None if kept else "the spool is full")
        except OSError as error:
            kept = False
            self._note(f"the spool can't be written: {error.strerror}")
            self.close()  # the next line may find it mended, and begins a new segment after a torn one
        return kept

    def _write(self, line: bytes) -> bool:
        if self._descriptor is None or self._size_bytes + len(line) > SEGMENT_BYTES:
            self.close()
            if sum(map(_bytes_in, _segments(self._directory))) + SEGMENT_BYTES > self._limit_bytes:
                return False
            self._descriptor = self._open_segment()
            self._size_bytes = 0
        written = os.write(self._descriptor, line)
        self._size_bytes += written
        if written < len(line):
            raise OSError(0, "a line was cut short")
        return True

    def _open_segment(self) -> int:
        """A new segment, locked before any reader can see it."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{self._writer}"
        unseen = self._directory / f"{name}.new"
        descriptor = os.open(unseen, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            unseen.rename(self._directory / f"{name}{_SUFFIX}")
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _note(self, trouble: str | None) -> None:
        """One log line when it begins and one when it is over."""
        if trouble is not None:
            self._refusing_until_s = time.monotonic() + _FULL_RECHECK_S
            if not self._refusing:
                _log.error("usage is not spooled for the ledger: %s", trouble)
        elif self._refusing:
            _log.warning("usage is spooled for the ledger again")
        self._refusing = trouble is not None


def spool_of_process(writer: str, limit_bytes: int, refused: Callable[[], None] = lambda: None) -> SpoolWriter | None:
    """This process's own part of the spool, if it was given one."""
    directory = os.environ.get(SPOOL_DIR)
    return SpoolWriter(Path(directory), writer, limit_bytes, refused) if directory else None


class Batch(Struct, frozen=True):
    """Whole lines, without their newlines, and where they end."""

    lines: Sequence[bytes]
    segment: Path
    end: int


class SpoolReader:
    """Reads what every writer to `directory` has left there, oldest segment first; the only one to remove anything."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read_to: dict[Path, int] = {}

    def next_batch(self, most: int) -> Batch | None:
        """Up to `most` lines that are not `done` yet; None when there are none. Raises OSError."""
        for segment in _segments(self._directory):
            with contextlib.suppress(FileNotFoundError):
                batch = self._read(segment, most) or self._remove_if_abandoned(segment, most)
                if batch is not None:
                    return batch
        return None

    def done(self, batch: Batch) -> None:
        """These lines have arrived. Raises OSError."""
        self._read_to[batch.segment] = batch.end
        unseen = batch.segment.with_suffix(f".{os.getpid()}.new")
        unseen.write_text(str(batch.end))
        unseen.rename(_mark(batch.segment))

    def waiting_bytes(self) -> int:
        """How much is not `done` yet. May be asked from another thread than the rest."""
        return sum(
            max(_bytes_in(path) - (self._read_to.get(path) or _marked(path)), 0) for path in _segments(self._directory)
        )

    def _read(self, segment: Path, most: int) -> Batch | None:
        position = self._position(segment)
        with segment.open("rb") as file:
            file.seek(position)
            content = file.read(_READ_BYTES)
        end = content.rfind(b"\n") + 1
        if not end:
            # Half a line: the rest may come. As much without any newline is no line of ours, and is let go as one.
            return Batch((content,), segment, position + len(content)) if len(content) == _READ_BYTES else None
        lines = content[:end].splitlines(keepends=True)[:most]
        return Batch([line.rstrip(b"\n") for line in lines], segment, position + sum(map(len, lines)))

    def _remove_if_abandoned(self, segment: Path, most: int) -> Batch | None:
        """Remove a segment that has been read and that nobody writes to, unless more has come."""
        with segment.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            # Whoever wrote to it may have done so until just before it was locked here.
            batch = self._read(segment, most)
            if batch is None:
                segment.unlink()
                _mark(segment).unlink(missing_ok=True)
                self._read_to.pop(segment, None)
            return batch

    def _position(self, segment: Path) -> int:
        if segment not in self._read_to:
            self._read_to[segment] = _marked(segment)
        return self._read_to[segment]


def _marked(segment: Path) -> int:
    """How far an earlier reader came."""
    try:
        return int(_mark(segment).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _mark(segment: Path) -> Path:
    return segment.with_suffix(".mark")


def _bytes_in(segment: Path) -> int:
    """0 if its reader has just removed it."""
    try:
        return segment.stat().st_size
    except FileNotFoundError:
        return 0


def _segments(directory: Path) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    yield from (directory / name for name in names if name.endswith(_SUFFIX))
