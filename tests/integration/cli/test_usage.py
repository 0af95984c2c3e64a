"""`extproc usage` as it is typed: from a real ledger and from a log, in every format."""

import asyncio
import csv
import io
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from extproc.stores.ledger import FIELDS, Ledger, Retention
from tests.helpers.redis import RedisServer

CONFIG = """\
redis: {url: "${REDIS_URL}"}
keys: {hash_secret: "${EXTPROC_KEY_SECRET}"}
models:
  demo-llm: {pool: demo, operations: [chat], context_window: 8192}
pools:
  demo: {dialect: openai, model: m, clusters: {a: {endpoints: ["127.0.0.1:1"]}}}
"""
PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "usage.md"
NEW_YEAR_S = 1767225600.0  # 2026-01-01T00:00:00Z
Extproc = Callable[..., subprocess.CompletedProcess[str]]


def events() -> list[dict[str, Any]]:
    """Six hundred requests, 10 minutes apart, of two teams; every hundredth is refused."""
    found = []
    for number in range(600):
        refused = number % 100 == 0
        found.append(
            {
                "id": f"id-{number}",
                "time": NEW_YEAR_S + number * 600,
                "principal": f"key-{number % 3}",
                "team": "search" if number % 2 else "support",
                "tier": "pro",
                "model": "demo-llm",
                "operation": "chat",
                "pool": "demo",
                "prompt_tokens": 100,
                "completion_tokens": 0 if refused else 10,
                "cached_tokens": 0,
                "price_nano": 0 if refused else 1_500_000,
                "currency": "USD",
                "status": 400 if refused else 200,
                "termination": "REJECTED" if refused else "COMPLETED",
                "ttft_ms": None if refused else 12.5,
            }
        )
    return found


async def fill(url: str, records: Sequence[dict[str, Any]]) -> None:
    ledger = Ledger(url, 5.0, Retention(35, 1_000_000))
    for start in range(0, len(records), 60):
        await ledger.append(records[start : start + 60])
    await ledger.close()


@pytest.fixture
def extproc(own_redis: RedisServer, tmp_path: pathlib.Path) -> Extproc:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    environment = os.environ | {"REDIS_URL": own_redis.url, "EXTPROC_KEY_SECRET": "a secret for tests only"}

    def run(*arguments: str | pathlib.Path, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "extproc", "usage", "--config", str(tmp_path / "gateway.yaml")]
        return subprocess.run(
            [*command, *map(str, arguments)], env=environment, input=given, capture_output=True, text=True, check=False
        )

    return run


def test_sums_by_anything_in_every_format(extproc: Extproc, own_redis: RedisServer) -> None:
    asyncio.run(fill(own_redis.url, events()))
    table = extproc()
    assert table.returncode == 0, table.stderr
    assert table.stdout == (
        "TEAM     MODEL     REQUESTS  PROMPT_TOKENS  CACHED_TOKENS  COMPLETION_TOKENS  SAVED_TOKENS  COST_USD\n"
        "search   demo-llm       300          30000              0               3000             0      0.45\n"
        "support  demo-llm       300          30000              0               2940             0     0.441\n"
        "total                   600          60000              0               5940             0     0.891\n"
    )
    assert table.stderr == ""
    assert table.stdout in PAGE.read_text()  # the page shows what this test makes
    rows = list(csv.DictReader(io.StringIO(extproc("--by", "team,day", "--format", "csv").stdout)))
    assert [row["day"] for row in rows if row["team"] == "search"] == [f"2026-01-0{day}" for day in range(1, 6)]
    assert sum(int(row["requests"]) for row in rows) == 600
    parsed = json.loads(extproc("--by", "principal", "--by", "termination", "--format", "json").stdout)
    assert len(parsed["groups"]) == 6
    assert parsed["total"]["cost"] == {"USD": "0.891"}
    assert sum(group["requests"] for group in parsed["groups"] if group["termination"] == "REJECTED") == 6
    one = json.loads(extproc("--by", "total", "--format", "json").stdout)
    assert one["groups"] == [one["total"]]


def test_of_some_time_alone(extproc: Extproc, own_redis: RedisServer) -> None:
    asyncio.run(fill(own_redis.url, events()))

    def requests(*arguments: str) -> int:
        count: int = json.loads(extproc(*arguments, "--format", "json").stdout)["total"]["requests"]
        return count

    assert requests("--since", "2026-01-02", "--until", "2026-01-03") == 144
    assert requests("--until", "2026-01-01T01:00") == 6
    assert requests("--until", "2026-01-01T02:00+01:00") == 6
    assert requests("--since", "2126-01-01") == 0
    recent = json.dumps({"message": "usage", "id": "x", "time": time.time() - 1800})
    for since, count in (("1h", 1), ("10m", 0), ("2d ago", 1)):
        result = extproc("--since", since, "--format", "json", "--from-log", "-", given=recent)
        assert json.loads(result.stdout)["total"]["requests"] == count


def test_an_export_has_every_record_once_however_often_it_is_made(
    extproc: Extproc, own_redis: RedisServer, tmp_path: pathlib.Path
) -> None:
    asyncio.run(fill(own_redis.url, events()))
    path = tmp_path / "usage.sqlite"
    first = extproc("--export", path, "--until", "2026-01-02")
    assert (first.returncode, first.stdout) == (0, "")
    assert "144 new records" in first.stderr
    again = extproc("--export", path)
    assert "456 new records" in again.stderr
    assert "144 were there already" in again.stderr
    database = sqlite3.connect(path)
    columns = [row[1] for row in database.execute("PRAGMA table_info(usage)")]
    sums = database.execute("SELECT count(*), sum(price_nano), sum(prompt_tokens), typeof(time) FROM usage").fetchone()
    nulls = database.execute("SELECT count(*) FROM usage WHERE ttft_ms IS NULL").fetchone()
    database.close()
    assert columns == list(FIELDS)
    assert sums == (600, 594 * 1_500_000, 60000, "real")
    assert nulls == (6,)


def test_an_export_to_what_is_no_database_is_refused(extproc: Extproc, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("these are no tables, and far more than a header's worth of text to make that clear. " * 20)
    result = extproc("--export", path)
    assert result.returncode == 1
    assert "not a database" in result.stderr
    assert "Traceback" not in result.stderr


def test_from_a_log_as_from_the_ledger(extproc: Extproc, own_redis: RedisServer, tmp_path: pathlib.Path) -> None:
    asyncio.run(fill(own_redis.url, events()))
    log = tmp_path / "service.log"
    lines = [json.dumps({"message": "usage", **event}) for event in events()]
    log.write_text("\n".join(["starting", '{"message": "usage of something else"}', *lines, '{"message": "usage"']))
    by = ("--by", "team,day,termination", "--format", "csv")
    assert extproc(*by, "--from-log", log).stdout == extproc(*by).stdout
    assert extproc(*by, "--from-log", "-", given=log.read_text()).stdout == extproc(*by).stdout


def test_what_can_not_be_read_is_said_without_a_traceback(extproc: Extproc, tmp_path: pathlib.Path) -> None:
    none = extproc("--from-log", tmp_path / "none.log")
    assert (none.returncode, "No such file" in none.stderr) == (1, True)
    strange = extproc("--from-log", "-", given='{"message": "usage", "id": "x", "prompt_tokens": "many"}\n')
    assert (strange.returncode, "the record x" in strange.stderr) == (1, True)
    assert "Traceback" not in none.stderr + strange.stderr


def test_an_empty_ledger_and_a_lost_one(extproc: Extproc, own_redis: RedisServer) -> None:
    empty = extproc("--format", "json")
    assert json.loads(empty.stdout)["total"]["requests"] == 0
    assert extproc().returncode == 0
    own_redis.stop()
    lost = extproc()
    assert lost.returncode == 1
    assert lost.stderr.startswith("extproc: redis:")


def test_a_trimmed_ledger_says_that_it_is_not_whole(extproc: Extproc, own_redis: RedisServer) -> None:
    async def trimmed() -> None:
        ledger = Ledger(own_redis.url, 5.0, Retention(max_age_days=35, max_records=100))
        await ledger.append([{"id": f"id-{number}", "time": NEW_YEAR_S} for number in range(350)])
        await ledger.close()

    asyncio.run(trimmed())
    result = extproc()
    assert result.returncode == 0
    assert "older records are no longer in the ledger" in result.stderr
