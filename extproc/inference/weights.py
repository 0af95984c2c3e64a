"""Trained weights as files: float16 in safetensors, with the shape that they were trained for in the metadata. Owns:
that format, and which matrices of an encoder layer may have low-rank deltas. Knows nothing of what weights mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LAYER_MATRICES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""The matrices of a layer, those that low-rank deltas are trained for."""


@dataclass(frozen=True)
class Stored:
    """Weights by name, float32. `shape` is what JSON made of the one they were saved with; `version` names exactly
    these weights."""

    shape: Mapping[str, Any]
    weights: Mapping[str, NDArray[np.float32]]
    version: str


def version_of(file: Path) -> str:
    """What `Stored.version` would be, without reading the weights' meaning."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def load(file: Path) -> Stored:
    """Needs `safetensors`, which building has and serving does not."""
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as stored:
        shape = json.loads(stored.metadata()["shape"])
        weights = {name: stored.get_tensor(name).astype(np.float32) for name in stored.keys()}  # noqa: SIM118
    return Stored(shape, weights, version_of(file))


def save(file: Path, shape: DataclassInstance, weights: Mapping[str, NDArray[Any]]) -> None:
    """Deterministic, so that the same training gives the same version."""
    from safetensors.numpy import save_file

    halves = {name: np.asarray(value, np.float16) for name, value in sorted(weights.items())}
    save_file(halves, file, {"shape": json.dumps(asdict(shape))})
