"""One directory with one chain, appended to by any number of processes of one machine; rotated, and retired by age.

    head.json            the sealed head: the last record's number and mac
    audit-N.jsonl        records from number N on; the chain goes on from file to file
    lock                 held by whoever appends

A record is in its file before the head says so: a crash in between leaves records beyond the head, which the next
writer finds and takes in, for it has the secret to tell them from others. Synchronous; must not know who calls.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from extproc.audit.chain import GENESIS, Head, Torn, fields_of, head_line, link_of, read_head, seal
from extproc.audit.record import Entry

HEAD = "head.json"
RETIRED = "retired"
"""The action of the record that says which files were removed for their age."""

_LOCK = "lock"
_PATTERN = "audit-*.jsonl"
_DAY_S = 86400


class Rotation(Struct, frozen=True):
    """When a file is full, and when it may go; None: never."""

    file_bytes: int = 16 * 1024 * 1024
    file_age_s: float = _DAY_S
    keep_days: int | None = None


class ChainFiles:
    """The chain in `directory`. Every method raises OSError for what the disk or a stranger did."""

    def __init__(
        self, directory: Path, key: bytes, rotation: Rotation, wall_s: Callable[[], float] = time.time
    ) -> None:
        self.directory = directory
        self._key = key
        self._rotation = rotation
        self._wall_s = wall_s

    def append(self, entries: Sequence[Entry]) -> None:
        """Write these records, in this order, and see them on disk. All or, if it raises, none. None is a rehearsal."""
        with self._locked():
            self._write([fields_of(entry) for entry in entries])

    def head(self) -> Head | None:
        """How far the chain is; None if there is none yet."""
        try:
            return read_head((self.directory / HEAD).read_bytes(), self._key)
        except FileNotFoundError:
            return None
        except Torn as error:
            raise OSError(errno.EBADMSG, f"{HEAD}: {error}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, records: list[dict[str, Any]]) -> None:
        now_s = self._wall_s()
        head = self.head() or self._begin(now_s)
        full = head.end >= self._rotation.file_bytes or now_s - head.opened_s >= self._rotation.file_age_s
        if full and head.head:
            head = msgspec.structs.replace(head, file=file_name(head.head + 1), end=0, opened_s=now_s)
            old = self._old_files(now_s, head.file)
            records = [*map(self._retirement, old[-1:]), *records]
        else:
            old = []
        descriptor = os.open(self.directory / head.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            head = self._take_in(descriptor, head)
            size = os.fstat(descriptor).st_size
            lines, head = self._seal(records, head)
            try:
                _write_all(descriptor, lines)
                os.fdatasync(descriptor)
                self._put_head(msgspec.structs.replace(head, end=size + len(lines)))
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        for path in old:
            path.unlink(missing_ok=True)

    def _begin(self, now_s: float) -> Head:
        if any(self.directory.glob(_PATTERN)):
            raise OSError(errno.EBADMSG, f"there are records, but their {HEAD} is gone")
        return Head(0, secrets.token_hex(8), GENESIS, file_name(1), 0, now_s)

    def _take_in(self, descriptor: int, head: Head) -> Head:
        """Records beyond the head are ours if their macs are; what follows them is a line that a crash cut short.

        Fewer bytes than the head says are nothing we did: it goes on, and `verify` finds the gap.
        """
        beyond = os.pread(descriptor, max(0, os.fstat(descriptor).st_size - head.end), head.end)
        end = head.end
        for line in beyond.splitlines(keepends=True):
            try:
                link, mac = link_of(line.removesuffix(b"\n"), self._key)
            except Torn:
                break
            if not line.endswith(b"\n") or link.prev != head.last:
                break
            end += len(line)
            head = msgspec.structs.replace(head, head=link.seq, last=mac, end=end)
        if beyond and end < os.fstat(descriptor).st_size:
            os.ftruncate(descriptor, end)
        return head

    def _seal(self, records: Sequence[Mapping[str, Any]], head: Head) -> tuple[bytes, Head]:
        lines, seq, last = [], head.head, head.last
        for fields in records:
            seq += 1
            line, last = seal({"seq": seq, "chain": head.chain, **fields, "prev": last}, self._key)
            lines.append(line + b"\n")
        return b"".join(lines), msgspec.structs.replace(head, head=seq, last=last)

    def _put_head(self, head: Head) -> None:
        fresh = self.directory / f"{HEAD}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(descriptor, head_line(head, self._key) + b"\n")
        finally:
            os.close(descriptor)
        fresh.replace(self.directory / HEAD)

    def _old_files(self, now_s: float, current: str) -> list[Path]:
        if self._rotation.keep_days is None:
            return []
        oldest_s = now_s - self._rotation.keep_days * _DAY_S
        old = []
        for path in files(self.directory):
            if path.name == current or path.stat().st_mtime > oldest_s:
                break
            old.append(path)
        return old

    def _retirement(self, newest: Path) -> dict[str, Any]:
        """The record that lets `verify` know that the files up to this one were removed by us."""
        link, mac = link_of(newest.read_bytes().splitlines()[-1], self._key)
        return {"time": self._wall_s(), "action": RETIRED, "through": link.seq, "last": mac}


def file_name(first_seq: int) -> str:
    return f"audit-{first_seq:012d}.jsonl"


def files(directory: Path) -> list[Path]:
    """Every file of records, oldest first."""
    return sorted(directory.glob(_PATTERN))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
