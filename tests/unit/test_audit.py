"""The audit log: whatever is done to it behind its writers' back is found, and where."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from extproc.audit.chain import GENESIS
from extproc.audit.files import HEAD, ChainFiles, Rotation, files
from extproc.audit.record import Action, Entry
from extproc.audit.verify import Broken, verify
from extproc.audit.writer import AuditWriter
from tests.helpers.processes import wait_until

KEY = b"a-secret-of-enough-letters"
SMALL = Rotation(file_bytes=1000)
DAY_S = 86400.0


def entry(number: int) -> Entry:
    return Entry(
        time_s=1000.0 + number,
        actor="key-1",
        action=Action.REDACTED,
        policy="redact",
        entities={"PHONE_NUMBER": number},
    )


def write(directory: Path, count: int, rotation: Rotation = SMALL, at_s: float = 0.0) -> ChainFiles:
    chain = ChainFiles(directory, KEY, rotation, lambda: at_s)
    for number in range(count):
        chain.append([entry(number)])
    return chain


def lines(directory: Path) -> list[tuple[Path, list[bytes]]]:
    return [(path, path.read_bytes().splitlines(keepends=True)) for path in files(directory)]


def test_a_log_is_whole_and_readable(tmp_path: Path) -> None:
    write(tmp_path, 20)
    result = verify(tmp_path, KEY)
    assert (result.first, result.last) == (1, 20)
    assert len(files(tmp_path)) > 2
    record = json.loads(lines(tmp_path)[0][1][0])
    assert record["prev"] == GENESIS
    assert record["entities"] == {"PHONE_NUMBER": 0}
    assert (tmp_path / HEAD).stat().st_mode & 0o077 == 0


def edit(directory: Path) -> str:
    path, content = lines(directory)[1]
    content[2] = content[2].replace(b'"actor":"key-1"', b'"actor":"key-2"')
    path.write_bytes(b"".join(content))
    return f"{path.name}:3: a record was changed"


def take_out(directory: Path) -> str:
    path, content = lines(directory)[0]
    del content[1]
    path.write_bytes(b"".join(content))
    return f"{path.name}:2: record 3 does not follow record 1"


def swap(directory: Path) -> str:
    path, content = lines(directory)[0]
    content[0], content[1] = content[1], content[0]
    path.write_bytes(b"".join(content))
    return f"{path.name}:2: record 1 does not follow record 2"


def repeat(directory: Path) -> str:
    path, content = lines(directory)[0]
    path.write_bytes(b"".join([content[0], *content]))
    return f"{path.name}:2: record 1 does not follow record 1"


def cut_the_end(directory: Path) -> str:
    path, content = lines(directory)[-1]
    path.write_bytes(b"".join(content[:-1]))
    return f"{path.name}:{len(content) - 1}: records 20 to 20 are missing at the end"


def cut_a_line(directory: Path) -> str:
    path, content = lines(directory)[-1]
    path.write_bytes(b"".join(content)[:-5])
    return f"{path.name}:{len(content)}: a record was changed"


def remove_the_first_file(directory: Path) -> str:
    gone, second = files(directory)[:2]
    gone.unlink()
    return f"{second.name}:1: records before"


def remove_a_file(directory: Path) -> str:
    _, gone, third = files(directory)[:3]
    gone.unlink()
    return f"{third.name}:1: record"


def remove_the_last_file(directory: Path) -> str:
    *_, before, gone = files(directory)
    gone.unlink()
    return f"{before.name}:"


def remove_every_file(directory: Path) -> str:
    for path in files(directory):
        path.unlink()
    return f"{HEAD}: records 1 to 20 are missing"


def remove_the_head(directory: Path) -> str:
    (directory / HEAD).unlink()
    return f"{HEAD}: there is no head"


def change_the_head(directory: Path) -> str:
    head = (directory / HEAD).read_bytes()
    (directory / HEAD).write_bytes(head.replace(b'"head":20', b'"head":19'))
    return f"{HEAD}: it was changed"


def bring_records_of_another_chain(directory: Path) -> str:
    other = directory / "other"
    write(other, 20)
    path = files(directory)[0]
    path.write_bytes((other / path.name).read_bytes())
    return f"{path.name}:1: a record of another chain"


TAMPERING = [
    edit, take_out, swap, repeat, cut_the_end, cut_a_line, remove_the_first_file, remove_a_file, remove_the_last_file,
    remove_every_file, remove_the_head, change_the_head, bring_records_of_another_chain,
]  # fmt: skip


@pytest.mark.parametrize("tamper", TAMPERING)
def test_tampering_is_found_where_it_is(tmp_path: Path, tamper: Callable[[Path], str]) -> None:
    write(tmp_path, 20)
    expected = tamper(tmp_path)
    with pytest.raises(Broken) as found:
        verify(tmp_path, KEY)
    assert expected in str(found.value)


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (path,) = files(tmp_path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(Broken):
            verify(tmp_path, KEY)


def test_another_secret_fits_nothing(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with pytest.raises(Broken, match="the secret is another"):
        verify(tmp_path, b"another-secret-of-letters")


def test_a_log_put_back_to_an_earlier_state_is_found_by_an_anchor(tmp_path: Path) -> None:
    chain = write(tmp_path, 3)
    (path,) = files(tmp_path)
    earlier = path.read_bytes(), (tmp_path / HEAD).read_bytes()
    chain.append([entry(4)])
    head = chain.head()
    assert head is not None
    anchors = {head.head: head.last}
    assert verify(tmp_path, KEY, anchors).anchors == 1
    path.write_bytes(earlier[0])
    (tmp_path / HEAD).write_bytes(earlier[1])
    verify(tmp_path, KEY)  # consistent in itself: this is what anchors are for
    with pytest.raises(Broken, match="records 4 to 4 were anchored and are missing"):
        verify(tmp_path, KEY, anchors)
    chain.append([entry(5)])
    with pytest.raises(Broken, match="record 4 is not the one that was anchored"):
        verify(tmp_path, KEY, anchors)


def test_what_a_crash_left_is_taken_in_or_cut(tmp_path: Path) -> None:
    chain = write(tmp_path, 2)
    head = (tmp_path / HEAD).read_bytes()
    chain.append([entry(2)])
    (tmp_path / HEAD).write_bytes(head)  # killed before the head was renewed
    (path,) = files(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"seq":4,"chain')  # and another in mid-line
    chain.append([entry(3)])
    assert verify(tmp_path, KEY).last == 4


def test_a_disk_that_is_full_costs_nothing_once_it_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = write(tmp_path, 2)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 20:
            real(descriptor, data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    real = os.write
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        chain.append([entry(2)])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    chain.append([entry(2)])
    assert verify(tmp_path, KEY).last == 3


def test_old_files_are_retired_on_record(tmp_path: Path) -> None:
    rotation = Rotation(file_bytes=600, keep_days=10)
    chain = write(tmp_path, 8, rotation)
    old = files(tmp_path)
    for path in old:
        os.utime(path, (0, 0))
    later = ChainFiles(tmp_path, KEY, rotation, lambda: 30 * DAY_S)
    later.append([entry(9)])
    assert not {path for path in old if path.exists()}
    assert verify(tmp_path, KEY).first == 9
    later.append([entry(10)])
    path, content = lines(tmp_path)[0]
    path.write_bytes(b"".join(content[1:]))  # with it goes the record that tells of the retirement
    with pytest.raises(Broken, match="records before 10 are missing"):
        verify(tmp_path, KEY)
    assert chain.head() is not None


def test_records_without_their_head_are_not_continued(tmp_path: Path) -> None:
    chain = write(tmp_path, 2)
    (tmp_path / HEAD).unlink()
    with pytest.raises(OSError, match="gone"):
        chain.append([entry(3)])


def _append_many(directory: Path, count: int) -> None:
    write(directory, count)


def test_processes_share_a_chain(tmp_path: Path) -> None:
    start = multiprocessing.get_context("spawn")
    running = [start.Process(target=_append_many, args=(tmp_path, 40)) for _ in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert verify(tmp_path, KEY).last == 120


class Unreliable:
    """Files on a disk that is full until it is not."""

    def __init__(self) -> None:
        self.full = True
        self.kept: list[Entry] = []
        self.tried = threading.Event()

    def append(self, entries: Sequence[Entry]) -> None:
        self.tried.set()
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.kept += entries


def test_records_wait_for_the_disk_and_only_the_excess_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extproc.audit.writer._RETRY_S", 0.01)
    disk, lost = Unreliable(), [0]
    told: list[bool] = []
    writer = AuditWriter(disk, lambda: lost.append(1), told.append, limit=5)  # type: ignore[arg-type]
    assert writer.available
    for number in range(7):
        writer.record(entry(number))
    assert wait_until(lambda: not writer.available)
    assert sum(lost) >= 1
    disk.full = False
    assert wait_until(lambda: writer.available)
    writer.close(5.0)
    assert len(disk.kept) == 7 - sum(lost)
    assert told == [True, False]
