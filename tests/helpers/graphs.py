"""Random weights of a small encoder and of heads on it, by the names that graphs are built from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from extproc.inference.bert_graph import BertShape
from extproc.inference.heads import HeadShape
from extproc.inference.weights import LAYER_MATRICES

Weights = dict[str, NDArray[np.float32]]


def encoder_weights(shape: BertShape, vocabulary: int = 50, positions: int = 16) -> Weights:
    width, inner = shape.width, shape.width * 4
    sizes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (vocabulary, width),
        "embeddings.position_embeddings.weight": (positions, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for layer in range(shape.layers):
        name = f"encoder.layer.{layer}"
        for part in LAYER_MATRICES:
            out = inner if part == "intermediate.dense" else width
            sizes |= {f"{name}.{part}.weight": (out, inner if part == "output.dense" else width)}
            sizes |= {f"{name}.{part}.bias": (out,)}
        for part in ("attention.output", "output"):
            sizes |= {f"{name}.{part}.LayerNorm.weight": (width,), f"{name}.{part}.LayerNorm.bias": (width,)}
    return _random(sizes, seed=1)


def head_weights(shape: BertShape, heads: HeadShape, encoder: Mapping[str, NDArray[np.float32]]) -> Weights:
    sizes: dict[str, tuple[int, ...]] = {}
    for layer in range(shape.layers - heads.branch_layers, shape.layers):
        for part in LAYER_MATRICES:
            out, width = encoder[f"encoder.layer.{layer}.{part}.weight"].shape
            name = f"branch.encoder.layer.{layer}.{part}"
            sizes |= {f"{name}.down": (width, heads.rank), f"{name}.up": (heads.rank, out)}
    features, labels = 2 * shape.width, len(heads.entity_labels)
    sizes |= {"entity.kernel": (features, labels), "entity.bias": (labels,)}
    for name, queries in (("injection", heads.injection_queries), ("complexity", heads.complexity_queries)):
        sizes |= {f"{name}.queries": (features, queries), f"{name}.inner.kernel": (features * queries, heads.inner)}
        sizes |= {f"{name}.inner.bias": (heads.inner,), f"{name}.kernel": (heads.inner, 1), f"{name}.bias": (1,)}
    return _random(sizes, seed=2)


def _random(sizes: Mapping[str, tuple[int, ...]], seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(scale=0.3, size=size).astype(np.float32) for name, size in sizes.items()}
