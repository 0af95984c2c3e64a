"""Finds what was done to an audit log behind its writers' back: a record changed, taken out, put in or moved, records
or files missing, the end cut off.

What only the end can tell is checked against the sealed head, and against anchors: what the last record was at earlier
moments, kept where whoever can write the directory can't.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from extproc.audit.chain import GENESIS, Head, Link, Torn, link_of, read_head
from extproc.audit.files import HEAD, RETIRED, files


class Broken(Exception):
    """The first place where the log is not as it was written; `line` is 0 where it is about the file itself."""

    def __init__(self, path: Path, line: int, what: str) -> None:
        super().__init__(f"{path}{f':{line}' if line else ''}: {what}")


class Verified(Struct, frozen=True):
    """A log without a break: its chain, the numbers of its first and last record, and how many anchors were checked."""

    chain: str
    first: int
    last: int
    anchors: int


class _Place(Struct, frozen=True):
    path: Path
    line: int

    def broken(self, what: str) -> Broken:
        return Broken(self.path, self.line, what)


def verify(directory: Path, key: bytes, anchors: Mapping[int, str] | None = None) -> Verified:
    """`anchors` give the mac of some records by their number. Raises Broken, OSError."""
    head = _head(directory, key)
    walk = _Walk(head, dict(anchors or {}), _Place(directory / HEAD, 0))
    for place, line in _lines(directory):
        walk.step(place, line, key)
    walk.finish()
    return Verified(head.chain, walk.first, walk.last, walk.checked)


class _Walk:
    """From record to record, each checked against the one before it."""

    def __init__(self, head: Head, anchors: dict[int, str], place: _Place) -> None:
        self.first = self.last = self.checked = 0
        self._head = head
        self._anchors = anchors
        self._place = self._began = place
        self._mac = self._first_prev = GENESIS
        self._retired = {0: GENESIS}

    def step(self, place: _Place, line: bytes, key: bytes) -> None:
        link, mac = _link(place, line, key)
        if link.chain != self._head.chain:
            raise place.broken("a record of another chain")
        if not self.first:
            self.first, self._first_prev, self._began = link.seq, link.prev, place
        elif link.seq != self.last + 1 or link.prev != self._mac:
            raise place.broken(f"record {link.seq} does not follow record {self.last}")
        if link.seq in self._anchors:
            self.checked += 1
            if self._anchors[link.seq] != mac:
                raise place.broken(f"record {link.seq} is not the one that was anchored")
        if link.seq == self._head.head and mac != self._head.last:
            raise place.broken(f"record {link.seq} is not the one that the head names")
        if link.action == RETIRED:
            self._retired[link.through] = link.last
        self.last, self._mac, self._place = link.seq, mac, place

    def finish(self) -> None:
        """What only the whole tells."""
        if self.last < self._head.head:
            raise self._place.broken(f"records {self.last + 1} to {self._head.head} are missing at the end")
        if self.first and self._retired.get(self.first - 1) != self._first_prev:
            raise self._began.broken(f"records before {self.first} are missing")
        newest = max(self._anchors, default=0)
        if newest > self.last:
            raise self._place.broken(f"records {self.last + 1} to {newest} were anchored and are missing")


def _head(directory: Path, key: bytes) -> Head:
    path = directory / HEAD
    try:
        return read_head(path.read_bytes(), key)
    except FileNotFoundError:
        raise Broken(path, 0, "there is no head") from None
    except Torn as error:
        raise Broken(path, 0, f"it was changed, or the secret is another: {error}") from error


def _lines(directory: Path) -> Iterator[tuple[_Place, bytes]]:
    for path in files(directory):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield _Place(path, number), line


def _link(place: _Place, line: bytes, key: bytes) -> tuple[Link, str]:
    try:
        return link_of(line.removesuffix(b"\n"), key)
    except Torn as error:
        raise Broken(place.path, place.line, f"a record was changed: {error}") from error
