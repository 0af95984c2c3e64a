"""How good the encoder's heads are: `python -m tests.benchmarks.heads_quality [--json FILE] [MODEL_FOLDER]`.

On generated texts whose phrases and names were kept out of training, on texts written by hand for this (`cases/`; they
are in no way part of training) and, where they are, on the public samples in `../shared/data`, which nothing was
trained on. The graph alone, in windows: without patterns, rules or normalisation.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from extproc.inference import minilm
from extproc.inference.training.evaluation import Judge, binary_figures, entity_figures, evaluate
from extproc.inference.training.examples import Composer
from extproc.inference.training.grammar import Entity, Part

CASES = pathlib.Path(__file__).parent / "cases"
SAMPLES = pathlib.Path(__file__).parents[3] / "shared" / "data"
_LABEL_OF = {"PERSON": "PERSON", "GPE": "LOCATION", "STREET_ADDRESS": "ADDRESS", "ORGANIZATION": "ORGANIZATION"}
_HARD_NEGATIVES = ("piguard/", "xstest/")
_SEED = 2  # not the one trained with


def generated(judge: Judge) -> Mapping[str, object]:
    return evaluate(judge, Composer(Part.HELD_OUT, _SEED).examples(entities=1000, guard=2000, complexity=300))


def written(judge: Judge) -> Mapping[str, object]:
    """The cases written by hand; an entity stands there as `[PERSON Ada Lovelace]`."""
    marked = [_marked(line) for line in _lines("entities")]
    found = [one.entities for one in judge.judge([text for text, _ in marked])]
    scores = {
        kind: np.array([one.injection for one in judge.judge(_lines(kind))]) for kind in ("attacks", "benign", "hard")
    }
    guard = binary_figures(scores["attacks"], np.concatenate([scores["benign"], scores["hard"]]))
    flagged = {f"flagged_{kind}": float((values > 0.5).mean()) for kind, values in scores.items()}
    return {"entities": entity_figures([entities for _, entities in marked], found), "guard": guard | flagged}


def _lines(name: str) -> list[str]:
    return (CASES / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def _marked(line: str) -> tuple[str, list[Entity]]:
    text, entities, done = "", [], 0
    for mark in re.finditer(r"\[([A-Z]+) ([^\]]+)\]", line):
        text += line[done : mark.start()]
        entities.append(Entity(len(text), len(text) + len(mark[2]), mark[1]))
        text += mark[2]
        done = mark.end()
    return text + line[done:], entities


def sample_documents(judge: Judge) -> Mapping[str, object]:
    """Entities on Presidio's sample of generated documents; a GPE counts as LOCATION, a STREET_ADDRESS as ADDRESS."""
    documents = json.loads((SAMPLES / "pii_documents.json").read_text())
    expected = [
        [
            Entity(span["start_position"], span["end_position"], _LABEL_OF[span["entity_type"]])
            for span in document["spans"]
            if span["entity_type"] in _LABEL_OF
        ]
        for document in documents
    ]
    found = [one.entities for one in judge.judge([document["full_text"] for document in documents])]
    return entity_figures(expected, found)


def sample_prompts(judge: Judge) -> Mapping[str, object]:
    """The guard on a sample of public attacks and benign prompts, hard negatives apart."""
    rows = [json.loads(line) for line in (SAMPLES / "injection.jsonl").read_text().splitlines()]
    scores = np.array([one.injection for one in judge.judge([row["text"] for row in rows])])
    attack = np.array([row["label"] == 1 for row in rows])
    hard = np.array([row["source"].startswith(_HARD_NEGATIVES) for row in rows])
    figures = binary_figures(scores[attack], scores[~attack])
    by_source = {
        f"flagged {source} ({label})": float(
            (scores[[row["source"] == source and row["label"] == label for row in rows]] > 0.5).mean()
        )
        for source, label in sorted({(row["source"], row["label"]) for row in rows})
    }
    return figures | {"flagged_hard": float((scores[hard & ~attack] > 0.5).mean())} | by_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=minilm.default_folder())
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here too")
    options = parser.parse_args()
    judge = Judge(options.folder)
    figures: dict[str, object] = {"generated": generated(judge), "written": written(judge)}
    if SAMPLES.exists():
        figures |= {"sample documents": sample_documents(judge), "sample prompts": sample_prompts(judge)}
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
