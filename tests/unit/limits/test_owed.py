"""What a worker that is killed had put on record and not settled is settled by its supervisor, and told only once."""

from __future__ import annotations

import os
from pathlib import Path

from extproc.telemetry.open_exchanges import OpenExchanges
from extproc.telemetry.usage import UsageLog, account_for_the_dead, owed_by_the_dead


def test_what_is_owed_outlives_the_worker(tmp_path: Path) -> None:
    table, log = tmp_path / "table", tmp_path / "log"
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    usage = UsageLog(descriptor, OpenExchanges(table))
    for name in ("open", "owing", "settled", "free"):
        usage.opened(name, {"id": name, "time": 1.0})
    usage.closed("owing", {"id": "owing"}, [1, 250])
    usage.closed("settled", {"id": "settled"}, [1, 250])
    usage.settled("settled")
    usage.closed("free", {"id": "free"})
    assert owed_by_the_dead(table) == [("owing", [1, 250])]
    assert account_for_the_dead(table, descriptor) == 1
    os.close(descriptor)
    assert sorted(line.split('"id":"')[1].split('"')[0] for line in log.read_text().splitlines()) == [
        "free", "open", "owing", "settled",
    ]  # fmt: skip
