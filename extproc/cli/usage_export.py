"""Usage records in an SQLite file: table `usage`, one row for each request. Must not know: where they come from."""

import pathlib
import sqlite3
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from extproc.cli.arguments import CommandFailed
from extproc.stores.ledger import FIELDS

_TYPES = {
    "time": "REAL",
    "prompt_tokens": "INTEGER",
    "completion_tokens": "INTEGER",
    "cached_tokens": "INTEGER",
    "price_nano": "INTEGER",
    "duration_ms": "REAL",
    "ttft_ms": "REAL",
    "status": "INTEGER",
    "saved_tokens": "INTEGER",
}


class Export:
    """Open it with `with`. An existing file is added to; a request that is in it already is left as it is."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.new = 0
        self.known = 0

    def __enter__(self) -> "Export":
        columns = ", ".join(f"{name} {_TYPES.get(name, 'TEXT')}" for name in FIELDS[1:])
        try:
            self._database = sqlite3.connect(self._path)
            self._database.execute(f"CREATE TABLE IF NOT EXISTS usage (id TEXT PRIMARY KEY, {columns}) WITHOUT ROWID")
            known = {row[1] for row in self._database.execute("PRAGMA table_info(usage)")}
            for name in [name for name in FIELDS if name not in known]:  # a file of an older version
                self._database.execute(f"ALTER TABLE usage ADD COLUMN {name} {_TYPES.get(name, 'TEXT')}")
        except sqlite3.Error as error:
            raise CommandFailed(f"{self._path}: {error}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """All of them or, if this fails, none."""
        places = ", ".join("?" * len(FIELDS))
        rows = [[_cell(name, record.get(name)) for name in FIELDS] for record in records]
        statement = f"INSERT OR IGNORE INTO usage ({', '.join(FIELDS)}) VALUES ({places})"  # noqa: S608 (all ours)
        try:
            with self._database:
                new = self._database.executemany(statement, rows).rowcount if rows else 0
        except sqlite3.Error as error:
            raise CommandFailed(f"{self._path}: {error}") from None
        self.new += new
        self.known += len(rows) - new


def _cell(name: str, value: Any) -> Any:
    """As text: the column's type makes numbers of it. A number that is not known is null."""
    if value is None or value == "":
        return None if name in _TYPES else ""
    return str(value)
