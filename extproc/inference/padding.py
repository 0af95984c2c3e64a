"""Texts of different lengths as one rectangle, and which of them go well together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from extproc.inference.outputs import Array
from extproc.inference.tokens import Tokens

# Each at most half as large again as the one before, so that at most a third of a batch of one width is padding.
_WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def width_of(tokens: int) -> int:
    """What a text of so many tokens is padded to at most; texts of one width are computed together."""
    return next(width for width in _WIDTHS if tokens <= width)


def padded(batch: Sequence[Tokens], width: int | None = None) -> Mapping[str, Array]:
    """The graph's inputs by name, int64 [texts, width]; as wide as the longest text unless given."""
    width = width or max(len(tokens.ids) for tokens in batch)
    ids = np.zeros((len(batch), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens.ids)] = tokens.ids
        mask[row, : len(tokens.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask}
