"""What the semantic cache knows of one exchange. Must not know: where answers are found."""

from __future__ import annotations

from msgspec import Struct

from extproc.caching import Served


class Asked(Struct):
    """A question, its embedding (FP32), and the digest of all that must match exactly; `served`: what it got."""

    identity: str
    question: str
    vector: bytes
    served: Served | None = None
