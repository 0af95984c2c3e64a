"""How good a graph's heads are on labelled texts. Owns: windows, decoding of labels, the measures.

Works on the ONNX graph itself, as it is served. Knows nothing of how it was trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from extproc.inference.training import batches
from extproc.inference.training.examples import Example
from extproc.inference.training.grammar import Entity

WINDOW_TOKENS = 128
_OVERLAP_TOKENS = 32
_BATCH = 16

Figures = dict[str, float]


@dataclass
class Judged:
    """What the graph says of one text: probabilities are the highest of its windows, entities of all of them."""

    injection: float
    complexity: float
    entities: list[Entity]


class Judge:
    """A built graph and its tokenizer, on one thread."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options)
        self._labels: list[str] = json.loads(self._session.get_modelmeta().custom_metadata_map["entity_labels"])
        self._tokenizer = batches.tokenizer(folder / "tokenizer.json")
        self._tokenizer.enable_truncation(WINDOW_TOKENS, stride=_OVERLAP_TOKENS)

    def judge(self, texts: Sequence[str]) -> list[Judged]:
        windows = [
            (number, window)
            for number, encoding in enumerate(self._tokenizer.encode_batch(list(texts)))
            for window in (encoding, *encoding.overflowing)
        ]
        windows.sort(key=lambda one: len(one[1].ids))
        judged = [Judged(0.0, 0.0, []) for _ in texts]
        for start in range(0, len(windows), _BATCH):
            chunk = windows[start : start + _BATCH]
            length = max(len(window.ids) for _, window in chunk)
            ids = np.zeros((len(chunk), length), np.int64)
            mask = np.zeros_like(ids)
            for row, (_, window) in enumerate(chunk):
                ids[row, : len(window.ids)] = window.ids
                mask[row, : len(window.ids)] = 1
            injection, complexity, logits = self._session.run(
                ["injection", "complexity", "entity_logits"], {"input_ids": ids, "attention_mask": mask}
            )
            for row, (number, window) in enumerate(chunk):
                one = judged[number]
                one.injection = max(one.injection, _probability(injection[row]))
                one.complexity = max(one.complexity, _probability(complexity[row]))
                one.entities += decode(logits[row, : len(window.ids)], self._labels, window.word_ids, window.offsets)
        for one in judged:
            one.entities = merged(one.entities)
        return judged


def decode(
    logits: NDArray[np.float32], labels: Sequence[str], words: Sequence[int | None], offsets: Sequence[tuple[int, int]]
) -> list[Entity]:
    """Entities of whole words, as the service decodes them: the pieces of a word decide together, `B-` and `I-` as
    one; a word opens an entity where the one before is of another kind or its first piece says `B-`."""
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    kinds = [label[2:] for label in labels[1::2]]
    begins, continues = shares[:, 1::2], shares[:, 2::2]
    found: list[Entity] = []
    within = False
    for first, last in _words(words):
        of_kind = (begins + continues)[first:last].mean(0)
        kind = int(of_kind.argmax())
        if of_kind[kind] <= shares[first:last, 0].mean():
            within = False
            continue
        end = offsets[last - 1][1]
        if within and found[-1].label == kinds[kind] and begins[first, kind] <= continues[first, kind]:
            found[-1] = Entity(found[-1].start, end, kinds[kind])
        else:
            found.append(Entity(offsets[first][0], end, kinds[kind]))
        within = True
    return found


def _words(words: Sequence[int | None]) -> Iterator[tuple[int, int]]:
    """Ranges of tokens that are one word."""
    first = 0
    for index in range(1, len(words) + 1):
        if index == len(words) or words[index] != words[first]:
            if words[first] is not None:
                yield first, index
            first = index


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


def _probability(logit: float) -> float:
    return float(1 / (1 + np.exp(-float(logit))))
