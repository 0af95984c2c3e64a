"""What `guard` found in one exchange, for the access log, the usage event and whoever routes or records. No text."""

from __future__ import annotations

import enum

from msgspec import Struct

from extproc.policies.scan import Coverage


class Kind(enum.StrEnum):
    """Whose words were judged."""

    USER = "user"
    DOCUMENT = "document"
    SYSTEM = "system"


class GuardResult(Struct, frozen=True):
    """`score` 0..1; `over`: whose words were over their threshold, None if nobody's; `families` say why; `coverage` is
    what the encoder saw, None where it wasn't asked."""

    score: float
    over: Kind | None
    families: tuple[str, ...]
    coverage: Coverage | None
