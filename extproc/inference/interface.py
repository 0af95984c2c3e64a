"""What the encoder tells about a text. The only thing policies know of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from extproc.detection.spans import Span


class Encoding(Struct, frozen=True):
    """One forward pass over one text that fits the encoder's window.

    `embedding`: 384 little-endian float32, length one (what Redis's VADD and VSIM take as FP32). `injection` and
    `complexity` are probabilities, 0..1; `spans` are named entities (PERSON, LOCATION, ORGANIZATION, ADDRESS) with
    offsets in code points of that text. None and () where the graph has no such head.
    """

    embedding: bytes
    injection: float | None = None
    complexity: float | None = None
    spans: tuple[Span, ...] = ()


class Encoder(Protocol):
    """Text in, encodings out; batched with whatever else is waiting."""

    def windows(self, text: str) -> Sequence[tuple[int, int]]:
        """Overlapping ranges (code points), in order, that cover `text`, each small enough for one pass; none for an
        empty text. Cheap: nothing is tokenised, 200 KB take well under a millisecond."""

    async def encode(self, texts: Sequence[str], deadline_s: float) -> Sequence[Encoding]:
        """One encoding per text, in order, within `deadline_s` from now; of a text longer than a pass, its beginning.

        Raises DependencyError (`encoder`): too slow, overloaded, unavailable. A deadline that can't be met fails at
        once rather than at its end. Cancelling drops what has not begun.
        """


class PairVerifier(Protocol):
    """Judges whether two questions ask for the same."""

    async def same(self, one: str, other: str, deadline_s: float) -> float:
        """The probability, 0..1, that an answer to one answers the other; symmetric. 0 for texts too long to be read
        together. Raises DependencyError: too slow, overloaded, unavailable."""
