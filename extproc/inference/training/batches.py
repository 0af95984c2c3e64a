"""Tokens and targets of examples, in batches of about one size. Owns: BIO labels, bucketing by length.

Knows nothing of how texts were made or of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from extproc.inference.heads import ENTITY_LABELS
from extproc.inference.tokens import Tokenizer, Tokens
from extproc.inference.training.examples import Example
from extproc.inference.training.grammar import Entity

BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256)
_TOKENS_PER_BATCH = 2048
UNKNOWN = -1
"""The label of a token that teaches nothing: padding, [CLS], texts without entity labels."""


@dataclass
class Batch:
    """B texts padded to T tokens. `injection` and `complexity` are NaN where unknown, `labels` UNKNOWN."""

    ids: NDArray[np.int32]
    mask: NDArray[np.float32]
    labels: NDArray[np.int32]
    injection: NDArray[np.float32]
    complexity: NDArray[np.float32]


def entity_labels(tokens: Tokens, entities: Sequence[Entity]) -> list[int]:
    """One label index per token: B- for the first token that touches an entity, I- for the others, O elsewhere."""
    labels = []
    opened: Entity | None = None
    for (start, end), word in zip(tokens.offsets, tokens.words, strict=True):
        inside = next((entity for entity in entities if start < entity.end and end > entity.start), None)
        if word is None:
            labels.append(UNKNOWN)
        elif inside is None:
            labels.append(0)
        else:
            labels.append(ENTITY_LABELS.index(f"{'I' if inside is opened else 'B'}-{inside.label}"))
        opened = inside
    return labels


def batches(examples: Sequence[Example], tokenizer: Tokenizer, buckets: Sequence[int] = BUCKETS) -> list[Batch]:
    """All examples that fit a bucket (ascending lengths), those of like length together.

    Attacks that do not fit are left out, because what makes them attacks might be cut off; other texts are cut.
    """
    tokenized = tokenizer.tokenize([example.text for example in examples])
    order = sorted(
        (len(one.ids), index)
        for index, one in enumerate(tokenized)
        if len(one.ids) <= buckets[-1] or examples[index].injection != 1.0
    )
    made = []
    for lower, bucket in pairwise((0, *buckets)):
        upper = bucket if bucket != buckets[-1] else 10**9
        members = [index for length, index in order if lower < length <= upper]
        size = max(1, _TOKENS_PER_BATCH // bucket)
        made += [_batch(chunk, bucket, size, examples, tokenized) for chunk in _chunks(members, size)]
    return made


def _chunks(members: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(members), size):
        yield members[start : start + size]


def _batch(
    members: list[int], length: int, size: int, examples: Sequence[Example], tokenized: Sequence[Tokens]
) -> Batch:
    """Padded with empty texts to `size`, so that every batch of a bucket has one shape."""
    batch = Batch(
        np.zeros((size, length), np.int32),
        np.zeros((size, length), np.float32),
        np.full((size, length), UNKNOWN, np.int32),
        np.full(size, np.nan, np.float32),
        np.full(size, np.nan, np.float32),
    )
    batch.mask[len(members) :, 0] = 1
    for row, index in enumerate(members):
        example, tokens = examples[index], tokenized[index]
        count = min(len(tokens.ids), length)
        batch.ids[row, :count] = tokens.ids[:count]
        batch.mask[row, :count] = 1
        if example.entities is not None:
            batch.labels[row, :count] = entity_labels(tokens, example.entities)[:count]
        batch.injection[row] = np.nan if example.injection is None else example.injection
        batch.complexity[row] = np.nan if example.complexity is None else example.complexity
    return batch
