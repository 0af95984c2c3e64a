"""Where a text is cut into pieces that fit one pass of the encoder. Pure arithmetic: no tokenizer is asked.

A piece has at most 510 bytes of UTF-8. WordPiece never makes more tokens than a text has bytes (its normalisation
takes a code point apart into fewer pieces than it has bytes, and every token is at least one of these), so with [CLS]
and [SEP] every piece fits the model's 512 positions whatever is in it; nothing is cut off unseen. English prose comes
to some 110 tokens a piece, Chinese to 170: about where a token is cheapest (docs/encoder.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

PIECE_BYTES = 510
_OVERLAP_BYTES = 64
"""A name or an address that ends one piece is whole in the next."""
_SNAP_CHARS = 32
"""A cut moves back so far at most to fall between words."""


def windows(text: str) -> Sequence[tuple[int, int]]:
    """Overlapping ranges (code points), in order, that cover `text`; none for an empty one."""
    if not text:
        return ()
    moved = _moved_ascii if text.isascii() else _mover(text)
    ranges = []
    start, length = 0, len(text)
    while (end := moved(start, PIECE_BYTES)) < length:
        end = text.rfind(" ", end - _SNAP_CHARS, end) + 1 or end
        ranges.append((start, end))
        start = moved(end, -_OVERLAP_BYTES)
        start = text.rfind(" ", start - _SNAP_CHARS, start) + 1 or start
    ranges.append((start, length))
    return ranges


def _moved_ascii(index: int, by_bytes: int) -> int:
    return index + by_bytes


def _mover(text: str) -> Callable[[int, int], int]:
    """A function that moves an index of `text` by at most so many bytes."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000).astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(sizes)))

    def moved(index: int, by_bytes: int) -> int:
        target = offsets[index] + by_bytes
        if by_bytes < 0:
            return int(np.searchsorted(offsets, target, "left"))
        return int(np.searchsorted(offsets, target, "right")) - 1

    return moved
