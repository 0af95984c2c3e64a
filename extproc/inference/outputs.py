"""What the graph computed, made into encodings: probabilities from logits, entities from labels of word pieces.

Owns the names of the graph's outputs. Pure functions over arrays; must not know who ran the graph.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extproc.detection.spans import Evidence, Span
from extproc.inference.interface import Encoding
from extproc.inference.tokens import Tokens

Array = NDArray[Any]


class Output(enum.StrEnum):
    """The outputs that are asked for where a graph has them.

    `embedding` float32 [batch, 384]; `injection` and `complexity` [batch], logits; `entity_logits` [batch, tokens,
    labels].
    """

    EMBEDDING = "embedding"
    INJECTION = "injection"
    COMPLEXITY = "complexity"
    ENTITY_LOGITS = "entity_logits"


ENTITY_LABELS = "entity_labels"
"""Metadata of the model: a JSON list that names the labels, `O`, `B-PERSON`, `I-PERSON`, ..., in order."""

_OUTSIDE = "O"
_EVIDENCE = Evidence("encoder", "entity_head")


class Labels:
    """The label set of one entity head. Raises ValueError unless it is `O` and pairs of `B-` and `I-`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.entities = tuple(dict.fromkeys(name[2:] for name in names if name != _OUTSIDE))
        wanted = {_OUTSIDE, *(f"{part}-{entity}" for part in "BI" for entity in self.entities)}
        if sorted(names) != sorted(wanted):
            raise ValueError(f"{ENTITY_LABELS} are not O and pairs of B- and I-: {', '.join(names)}")
        self.outside = names.index(_OUTSIDE)
        self.begin = [names.index(f"B-{entity}") for entity in self.entities]
        self.inside = [names.index(f"I-{entity}") for entity in self.entities]


def encodings(outputs: Mapping[Output, Array], batch: Sequence[Tokens], labels: Labels | None) -> Sequence[Encoding]:
    """One for each text of the batch; rows of `outputs` may be padded to any width."""
    embeddings = np.ascontiguousarray(outputs[Output.EMBEDDING], dtype="<f4")
    injection = _probabilities(outputs.get(Output.INJECTION), len(batch))
    complexity = _probabilities(outputs.get(Output.COMPLEXITY), len(batch))
    logits = outputs.get(Output.ENTITY_LOGITS)
    return [
        Encoding(
            embeddings[row].tobytes(),
            injection[row],
            complexity[row],
            () if logits is None or labels is None else tuple(_entities(logits[row], tokens, labels)),
        )
        for row, tokens in enumerate(batch)
    ]


def _probabilities(logits: Array | None, rows: int) -> Sequence[float | None]:
    if logits is None:
        return (None,) * rows
    bounded = np.clip(logits.astype(np.float64).reshape(rows), -500, 500)  # exp overflows beyond
    result: list[float | None] = (1 / (1 + np.exp(-bounded))).tolist()
    return result


def _entities(logits: Array, tokens: Tokens, labels: Labels) -> Iterator[Span]:
    """Entities of whole words. A word is what the mean over its pieces says, `B-` and `I-` taken together; it begins
    a new entity where the word before is of another kind or its first piece says `B-`."""
    logits = logits[: len(tokens.ids)].astype(np.float64)
    if (logits.argmax(-1) == labels.outside).all():
        return iter(())
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    entities: list[_Entity] = []
    within = False
    for first, last in _words(tokens.words):
        begins, continues = shares[first:last, labels.begin], shares[first:last, labels.inside]
        kinds = (begins + continues).mean(0)
        kind = int(kinds.argmax())
        if kinds[kind] <= shares[first:last, labels.outside].mean():
            within = False
            continue
        if not (within and entities[-1].kind == kind and begins[0, kind] <= continues[0, kind]):
            entities.append(_Entity(kind, tokens.offsets[first][0]))
        entities[-1].extend(tokens.offsets[last - 1][1], float(kinds[kind]))
        within = True
    return (entity.span(labels) for entity in entities)


class _Entity:
    """An entity that the next word may still be part of."""

    def __init__(self, kind: int, start: int) -> None:
        self.kind, self._start, self._end = kind, start, start
        self._probabilities: list[float] = []

    def extend(self, end: int, probability: float) -> None:
        self._end = end
        self._probabilities.append(probability)

    def span(self, labels: Labels) -> Span:
        confidence = sum(self._probabilities) / len(self._probabilities)
        return Span(self._start, self._end, labels.entities[self.kind], confidence, _EVIDENCE)


def _words(words: Sequence[int | None]) -> Iterator[tuple[int, int]]:
    """Ranges of tokens that are one word."""
    first = 0
    for index in range(1, len(words) + 1):
        if index == len(words) or words[index] != words[first]:
            if words[first] is not None:
                yield first, index
            first = index
