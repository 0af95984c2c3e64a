"""The trained heads: their weights, their shape, and how the graph gets them. Owns: the file `heads.safetensors`.

The branch's deltas are low-rank pairs, merged into the encoder's own matrices when the graph is built. Made by
`extproc.inference.training`; `report.json` beside the weights says how, and how good they are. Knows nothing of running
a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extproc.inference import weights

ENTITIES = ("PERSON", "LOCATION", "ORGANIZATION", "ADDRESS")
ENTITY_LABELS = ("O", *(f"{place}-{entity}" for entity in ENTITIES for place in "BI"))
"""Index of `entity_logits`'s last axis to label: B- opens an entity, I- continues it."""
WEIGHTS_FILE = Path(__file__).with_name("heads.safetensors")
REPORT_FILE = Path(__file__).with_name("report.json")


@dataclass(frozen=True)
class HeadShape:
    """`branch_layers`: how many of the last layers the heads have a copy of, with deltas of `rank`."""

    branch_layers: int = 2
    rank: int = 32
    injection_queries: int = 4
    complexity_queries: int = 2
    inner: int = 64
    entity_labels: tuple[str, ...] = ENTITY_LABELS


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


def load(file: Path = WEIGHTS_FILE) -> Heads:
    """Needs `safetensors`, which building has and serving does not."""
    stored = weights.load(file)
    shape = HeadShape(**{**stored.shape, "entity_labels": tuple(stored.shape["entity_labels"])})
    return Heads(shape, stored.weights, stored.version)
