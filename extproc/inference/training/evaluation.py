"""How good a graph's heads are on labelled texts. Owns: the measures.

Works on the ONNX graph itself, with the windows, tokens and decoding of the service. Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extproc.config.encoder import EncoderDevice
from extproc.inference.local import LocalEngine
from extproc.inference.training.examples import Example
from extproc.inference.training.grammar import Entity
from extproc.inference.windows import windows

_BATCH = 16

Figures = dict[str, float]


@dataclass
class Judged:
    """What the graph says of one text: probabilities are the highest of its windows, entities of all of them."""

    injection: float
    complexity: float
    entities: list[Entity]


class Judge:
    """A built graph and its tokenizer, on one thread. Raises ValueError for a graph without heads."""

    def __init__(self, folder: Path) -> None:
        self._engine = LocalEngine(folder, EncoderDevice.CPU, threads=1)

    def judge(self, texts: Sequence[str]) -> list[Judged]:
        judged = [Judged(0.0, 0.0, []) for _ in texts]
        pieces = [(number, start, text[start:end]) for number, text in enumerate(texts) for start, end in windows(text)]
        pieces.sort(key=lambda piece: len(piece[2]))
        for begin in range(0, len(pieces), _BATCH):
            chunk = pieces[begin : begin + _BATCH]
            encodings = self._engine.run(self._engine.tokenize([text for _, _, text in chunk]))
            for (number, start, _), encoding in zip(chunk, encodings, strict=True):
                if encoding.injection is None or encoding.complexity is None:
                    raise ValueError("this graph has no heads")
                one = judged[number]
                one.injection = max(one.injection, encoding.injection)
                one.complexity = max(one.complexity, encoding.complexity)
                one.entities += [Entity(span.start + start, span.end + start, span.entity) for span in encoding.spans]
        for one in judged:
            one.entities = merged(one.entities)
        return judged


def merged(entities: Sequence[Entity]) -> list[Entity]:
    """Those that overlap, as the windows of a text do, made one."""
    result: list[Entity] = []
    for entity in sorted(entities, key=lambda one: (one.start, -one.end)):
        if result and entity.start < result[-1].end:
            last = result[-1]
            result[-1] = Entity(last.start, max(last.end, entity.end), last.label)
        else:
            result.append(entity)
    return result


def entity_figures(expected: Sequence[Sequence[Entity]], found: Sequence[Sequence[Entity]]) -> dict[str, Figures]:
    """Precision, recall and F1 per entity: `strict` where both ends must be right, otherwise where spans of the same
    label overlap."""
    labels = sorted({entity.label for entities in expected for entity in entities})
    return {label: _entity_figures(label, expected, found) for label in labels}


def _entity_figures(label: str, expected: Sequence[Sequence[Entity]], found: Sequence[Sequence[Entity]]) -> Figures:
    exact = hits = covered = wanted = given = 0
    for right, said in zip(expected, found, strict=True):
        mine = [entity for entity in right if entity.label == label]
        theirs = [entity for entity in said if entity.label == label]
        wanted, given = wanted + len(mine), given + len(theirs)
        exact += len(set(mine) & set(theirs))
        hits += sum(any(_overlap(one, other) for other in mine) for one in theirs)
        covered += sum(any(_overlap(one, other) for other in theirs) for one in mine)
    strict_f1 = 2 * exact / max(1, wanted + given)
    precision, recall = hits / max(1, given), covered / max(1, wanted)
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return {"count": wanted, "precision": precision, "recall": recall, "f1": f1, "strict_f1": strict_f1}


def _overlap(one: Entity, other: Entity) -> bool:
    return one.start < other.end and other.start < one.end


def binary_figures(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> Figures:
    """AUC, and the recall where 1 % of the negatives is flagged. Ties count half."""
    order = np.concatenate([positive, negative])
    ranks = np.empty(len(order))
    _, inverse, counts = np.unique(order, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = ((ends - counts + 1 + ends) / 2)[inverse]
    auc = (ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative))
    threshold = threshold_at(negative, 0.01)
    return {
        "positives": len(positive),
        "negatives": len(negative),
        "auc": float(auc),
        "threshold_at_1_percent": threshold,
        "recall_at_1_percent": float((positive > threshold).mean()),
        "recall_at_half": float((positive > 0.5).mean()),
        "false_positives_at_half": float((negative > 0.5).mean()),
    }


def threshold_at(negative: NDArray[np.float64], share: float) -> float:
    """The lowest threshold above which at most `share` of the negatives lie."""
    allowed = int(share * len(negative))
    return float(np.sort(negative)[len(negative) - 1 - allowed])


def evaluate(judge: Judge, examples: Sequence[Example]) -> Mapping[str, object]:
    """Every measure on generated examples, by kind where it says more."""
    judged = judge.judge([example.text for example in examples])
    pairs = list(zip(examples, judged, strict=True))
    with_entities = [(example, one) for example, one in pairs if example.entities is not None]
    attacks = ("attack", "indirect")
    scores = {
        kind: np.array([one.injection for example, one in pairs if example.kind == kind])
        for kind in ("attack", "indirect", "benign", "hard", "document")
    }
    guard = binary_figures(
        np.concatenate([scores[kind] for kind in attacks]),
        np.concatenate([values for kind, values in scores.items() if kind not in attacks]),
    )
    flagged = {f"flagged_{kind}": float((values > 0.5).mean()) for kind, values in scores.items()}
    complexity = {
        kind: np.array([one.complexity for example, one in pairs if example.kind == kind])
        for kind in ("easy", "middle", "complex")
    }
    return {
        "entities": entity_figures(
            [example.entities or [] for example, _ in with_entities], [one.entities for _, one in with_entities]
        ),
        "guard": guard | flagged,
        "complexity": {
            "auc_complex_above_rest": binary_figures(
                complexity["complex"], np.concatenate([complexity["easy"], complexity["middle"]])
            )["auc"],
            **{f"mean_{kind}": float(values.mean()) for kind, values in complexity.items()},
        },
    }
