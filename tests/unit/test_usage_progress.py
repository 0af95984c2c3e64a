"""The progress bar of `extproc usage`: for a terminal alone, and only when it takes a while."""

import io

import pytest

from extproc.cli.usage_progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stderr", "each_s", "shown"), [(Terminal(), 0.5, True), (Terminal(), 0.1, False), (io.StringIO(), 0.5, False)]
)
def test_it_is_shown_where_it_helps(
    monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, each_s: float, shown: bool
) -> None:
    now_s = 0.0
    monkeypatch.setattr("extproc.cli.usage_progress.time.monotonic", lambda: now_s)
    monkeypatch.setattr("sys.stderr", stderr)
    with Progress(2000) as progress:
        for _ in range(4):
            now_s += each_s
            progress.advance(500)
    if shown:
        assert "100%  2,000 records" in stderr.getvalue()
        assert stderr.getvalue().endswith("\r\x1b[K")  # and gone before the table
    else:
        assert stderr.getvalue() == ""


def test_more_records_than_expected_are_no_more_than_all(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    stderr = Terminal()
    monkeypatch.setattr("extproc.cli.usage_progress.time.monotonic", lambda: now_s)
    monkeypatch.setattr("sys.stderr", stderr)
    with Progress(0) as progress:
        now_s = 5.0
        progress.advance(7)
    assert "100%  7 records" in stderr.getvalue()
