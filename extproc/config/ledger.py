"""The `ledger` section: how long the record of every request is kept, and where it waits while Redis is away.

Must not know: what is in a record.
"""

import pathlib
from typing import Annotated

import pydantic

from extproc.config.section import Section

_MIB = 1024 * 1024


def beside_config(path: pathlib.Path, info: pydantic.ValidationInfo) -> pathlib.Path:
    """A relative path is relative to the file that names it, wherever the process was started."""
    base: pathlib.Path | None = (info.context or {}).get("base")
    return path.expanduser() if base is None else base / path.expanduser()


class Ledger(Section):
    """One record per request in a Redis stream, for billing (`extproc usage`)."""

    enabled: bool = True
    """Without the ledger the usage lines in the log are all there is. A change takes effect at the next start."""

    max_age_days: Annotated[int, pydantic.Field(ge=1, le=3650)] = 35
    """Older records are trimmed."""

    max_records: Annotated[int, pydantic.Field(ge=1000)] = 1_000_000
    """Above so many the oldest are trimmed, whatever their age."""

    spool_dir: Annotated[pathlib.Path, pydantic.AfterValidator(beside_config)] | None = None
    """Where records wait on disk until Redis has them, relative to the configuration file. Without one they wait in a
    temporary directory, which the next start doesn't know. A change takes effect at the next start."""

    spool_limit_bytes: Annotated[int, pydantic.Field(ge=4 * _MIB)] = 256 * _MIB
    """Most that may wait there; what comes on top is only in the log, and counted as lost."""
