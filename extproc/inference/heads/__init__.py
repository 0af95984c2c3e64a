"""The trained heads: their weights, their shape, and how the graph gets them. Owns: the file `heads.safetensors`.

Weights are float16; the branch's deltas are low-rank pairs, merged into the encoder's own matrices when the graph is
built. Made by `extproc.inference.training`; `report.json` beside the weights says how, and how good they are. Knows
nothing of running a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENTITIES = ("PERSON", "LOCATION", "ORGANIZATION", "ADDRESS")
ENTITY_LABELS = ("O", *(f"{place}-{entity}" for entity in ENTITIES for place in "BI"))
"""Index of `entity_logits`'s last axis to label: B- opens an entity, I- continues it."""
BRANCH_MATRICES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""The matrices of a layer that the branch has low-rank deltas for."""
_FOLDER = Path(__file__).parent
WEIGHTS_FILE = _FOLDER / "heads.safetensors"
REPORT_FILE = _FOLDER / "report.json"


@dataclass(frozen=True)
class HeadShape:
    """`branch_layers`: how many of the last layers the heads have a copy of, with deltas of `rank`."""

    branch_layers: int = 2
    rank: int = 32
    injection_queries: int = 4
    complexity_queries: int = 2
    inner: int = 64
    entity_labels: tuple[str, ...] = ENTITY_LABELS

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> HeadShape:
        values = json.loads(metadata["shape"])
        return cls(**{**values, "entity_labels": tuple(values["entity_labels"])})

    def to_metadata(self) -> dict[str, str]:
        return {"shape": json.dumps(asdict(self))}


@dataclass(frozen=True)
class Heads:
    """Trained weights by name, float32. `version` names exactly these weights."""

    shape: HeadShape
    weights: Mapping[str, NDArray[np.float32]]
    version: str

    def merged(self, name: str, kernel: NDArray[Any]) -> NDArray[Any]:
        """An encoder matrix [in, out] as the branch uses it: with its delta, or as it is where there is none."""
        down = self.weights.get(f"branch.{name}.down")
        return kernel if down is None else kernel + down @ self.weights[f"branch.{name}.up"]


def version_of(file: Path = WEIGHTS_FILE) -> str:
    """What `Heads.version` would be, without reading the weights' meaning."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def load(file: Path = WEIGHTS_FILE) -> Heads:
    """Needs `safetensors`, which building has and serving does not."""
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as stored:
        shape = HeadShape.from_metadata(stored.metadata())
        weights = {name: stored.get_tensor(name).astype(np.float32) for name in stored.keys()}  # noqa: SIM118
    return Heads(shape, weights, version_of(file))


def save(file: Path, shape: HeadShape, weights: Mapping[str, NDArray[Any]]) -> None:
    """As float16; deterministic, so that the same training gives the same version."""
    from safetensors.numpy import save_file

    save_file(
        {name: np.asarray(value, np.float16) for name, value in sorted(weights.items())}, file, shape.to_metadata()
    )
