"""The `audit` section: where the audit log is kept, and the secret that makes it tamper-evident.

Must not know: what is in a record.
"""

import functools
import pathlib
from typing import Annotated

import pydantic

from extproc.config.ledger import beside_config
from extproc.config.section import ExistingFile, Section

_MIN_SECRET_CHARS = 16
_KIB = 1024


class Audit(Section):
    """A hash-chained record of every decision that changed something, and of every admin action."""

    dir: Annotated[pathlib.Path, pydantic.AfterValidator(beside_config)] | None = None
    """Directory of this replica's audit log, relative to the configuration file; without one there is no audit log. A
    change takes effect at the next start."""

    secret: pydantic.SecretStr | None = None
    """The secret of its keyed hashes, at least 16 characters. Another secret needs another directory."""

    secret_file: ExistingFile | None = None
    """A file that holds it instead."""

    file_bytes: Annotated[int, pydantic.Field(ge=4 * _KIB)] = 16 * _KIB * _KIB
    """A file larger than this is closed and another one begun."""

    file_age_hours: Annotated[int, pydantic.Field(ge=1, le=8760)] = 24
    """So is one older than this."""

    keep_days: Annotated[int, pydantic.Field(ge=1, le=36500)] | None = None
    """Closed files older than this are removed, and that they were is recorded; without it they are kept for ever."""

    @pydantic.model_validator(mode="after")
    def _has_a_secret(self) -> "Audit":
        if self.dir is not None:
            assert self.key
        return self

    @functools.cached_property
    def key(self) -> bytes:
        """The secret, from wherever it is kept. Raises ValueError if there is none or it is too short."""
        if (self.secret is None) == (self.secret_file is None):
            raise ValueError("give secret or secret_file, one of them")
        if self.secret is not None:
            key = self.secret.get_secret_value().encode()
        elif self.secret_file is not None:
            key = self.secret_file.read_bytes().strip()
        if len(key) < _MIN_SECRET_CHARS:
            raise ValueError(f"the secret has at least {_MIN_SECRET_CHARS} characters")
        return key
