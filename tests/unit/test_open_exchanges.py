"""The table of open exchanges: what a killed worker leaves behind, and that it can't grow or mix things up."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.telemetry.open_exchanges import SLOTS, OpenExchanges, unfinished
from extproc.telemetry.usage import UsageLog, account_for_the_dead

IDS = st.integers(0, 20).map(str)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["write", "clear"]), IDS, st.integers()), max_size=60))
def test_what_is_open_is_what_was_written_and_not_cleared(tmp_path: Path, steps: list[tuple[str, str, int]]) -> None:
    path, model = tmp_path / "table", {}
    table = OpenExchanges(path)
    for action, exchange, value in steps:
        if action == "write":
            table.write(exchange, {"id": exchange, "value": value % 1000})
            model[exchange] = {"id": exchange, "value": value % 1000}
        else:
            table.clear(exchange)
            model.pop(exchange, None)
    assert sorted(unfinished(path), key=lambda facts: facts["id"]) == [model[key] for key in sorted(model)]


def test_more_exchanges_than_slots_are_let_be(tmp_path: Path) -> None:
    table = OpenExchanges(tmp_path / "table")
    for number in range(SLOTS + 10):
        table.write(str(number), {"id": number})
    assert len(unfinished(tmp_path / "table")) == SLOTS
    table.clear("0")
    table.write("again", {"id": "again"})
    assert {"id": "again"} in unfinished(tmp_path / "table")


def test_facts_too_large_for_a_slot_leave_the_smaller_ones(tmp_path: Path) -> None:
    table = OpenExchanges(tmp_path / "table")
    table.write("a", {"id": "a"})
    table.write("a", {"id": "a", "more": "x" * 5000})
    assert unfinished(tmp_path / "table") == [{"id": "a"}]


def test_a_new_table_is_empty(tmp_path: Path) -> None:
    OpenExchanges(tmp_path / "table").write("a", {"id": "a"})
    OpenExchanges(tmp_path / "table")
    assert unfinished(tmp_path / "table") == []


def test_the_dead_are_accounted_for_once(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    usage = UsageLog(writing, OpenExchanges(tmp_path / "table"))
    usage.opened("a", {"id": "a", "time": 1.0})
    usage.opened("b", {"id": "b", "time": 1.0})
    usage.closed("a", {"id": "a", "termination": "COMPLETED"})
    assert account_for_the_dead(tmp_path / "table", writing) == 1
    assert account_for_the_dead(tmp_path / "table", writing) == 0
    os.close(writing)
    with os.fdopen(reading, "rb") as lines:
        events = [orjson.loads(line) for line in lines]
    assert [(event["id"], event["termination"]) for event in events] == [("a", "COMPLETED"), ("b", "INTERNAL_ERROR")]
    assert events[1]["reason"] == "worker_died"
