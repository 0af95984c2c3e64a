"""The spool on disk: what is written is read once and in order, within bounds, whoever dies."""

import pathlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.stores.spool import SEGMENT_BYTES, SPOOL_DIR, SpoolReader, SpoolWriter, spool_of_process

LIMIT_BYTES = 4 * SEGMENT_BYTES


def drain(reader: SpoolReader, most: int = 64) -> list[bytes]:
    lines: list[bytes] = []
    while (batch := reader.next_batch(most)) is not None:
        assert 0 < len(batch.lines) <= most
        lines += batch.lines
        reader.done(batch)
    return lines


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["write", "other", "read", "new reader", "new writer"]), max_size=40))
def test_every_line_is_read_once_whatever_the_order_of_things(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    writers = {name: SpoolWriter(directory, name, LIMIT_BYTES) for name in ("one", "other")}
    reader, written, read = SpoolReader(directory), 0, list[bytes]()
    for step in steps:
        if step in ("write", "other"):
            assert writers["one" if step == "write" else "other"].append(b"%d\n" % written)
            written += 1
        elif step == "read":
            batch = reader.next_batch(3)
            if batch is not None:
                read += batch.lines
                reader.done(batch)
        elif step == "new reader":
            reader = SpoolReader(directory)
        else:
            writers["one"].close()
            writers["one"] = SpoolWriter(directory, "one", LIMIT_BYTES)
    read += drain(reader)
    assert sorted(map(int, read)) == list(range(written))
    assert reader.waiting_bytes() == 0
    for writer in writers.values():
        writer.close()
    assert drain(reader) == []
    assert list(directory.iterdir()) == []


def test_lines_of_one_writer_are_read_in_order_over_many_segments(tmp_path: pathlib.Path) -> None:
    writer, reader = SpoolWriter(tmp_path, "w", LIMIT_BYTES), SpoolReader(tmp_path)
    lines = [b"%06d" % number + b"x" * 500 for number in range(5000)]
    assert all(writer.append(line + b"\n") for line in lines)
    assert len(list(tmp_path.glob("*.jsonl"))) > 2
    assert drain(reader) == lines
    assert len(list(tmp_path.glob("*.jsonl"))) == 1  # the writer's own is still open
    writer.close()


def test_a_batch_that_was_not_done_comes_again(tmp_path: pathlib.Path) -> None:
    writer, reader = SpoolWriter(tmp_path, "w", LIMIT_BYTES), SpoolReader(tmp_path)
    writer.append(b"a\n")
    assert reader.next_batch(1) == reader.next_batch(1) == SpoolReader(tmp_path).next_batch(1)
    writer.close()


def test_half_a_line_waits_for_its_other_half(tmp_path: pathlib.Path) -> None:
    writer, reader = SpoolWriter(tmp_path, "w", LIMIT_BYTES), SpoolReader(tmp_path)
    writer.append(b"who")
    assert reader.next_batch(9) is None
    writer.append(b"le\n")
    assert drain(reader) == [b"whole"]
    writer.close()


def test_a_full_spool_refuses_says_so_once_and_takes_more_when_there_is_room(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("extproc.stores.spool.time.monotonic", lambda: now_s)
    refused: list[int] = []
    writer = SpoolWriter(tmp_path, "w", LIMIT_BYTES, lambda: refused.append(1))
    line = b"x" * 10_000 + b"\n"
    kept = 0
    while writer.append(line):
        kept += 1
    for _ in range(100):
        now_s += 0.3
        assert not writer.append(line)
    assert len(refused) == 101
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= LIMIT_BYTES
    assert kept * len(line) > LIMIT_BYTES - 2 * SEGMENT_BYTES
    assert len(drain(SpoolReader(tmp_path))) == kept
    now_s += 2.0
    assert writer.append(line)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    writer.close()


def test_a_disk_that_takes_nothing_costs_no_request(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("not a directory")
    writer = SpoolWriter(tmp_path / "file" / "spool", "w", LIMIT_BYTES)
    assert [writer.append(b"a\n") for _ in range(3)] == [False, False, False]
    assert len(caplog.records) == 1
    assert "can't be written" in caplog.text


def test_the_spool_is_its_owners_alone(tmp_path: pathlib.Path) -> None:
    writer = SpoolWriter(tmp_path / "spool", "w", LIMIT_BYTES)
    writer.append(b"a\n")
    (segment,) = (tmp_path / "spool").iterdir()
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert segment.stat().st_mode & 0o777 == 0o600
    writer.close()


def test_a_process_spools_where_it_was_told(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SPOOL_DIR, raising=False)
    assert spool_of_process("w", LIMIT_BYTES) is None
    monkeypatch.setenv(SPOOL_DIR, str(tmp_path / "spool"))
    writer = spool_of_process("w", LIMIT_BYTES)
    assert writer is not None
    writer.append(b"a\n")
    writer.close()
    assert drain(SpoolReader(tmp_path / "spool")) == [b"a"]


def test_no_spool_yet_is_an_empty_one(tmp_path: pathlib.Path) -> None:
    reader = SpoolReader(tmp_path / "none")
    assert reader.next_batch(1) is None
    assert reader.waiting_bytes() == 0
