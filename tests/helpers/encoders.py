"""Encoders for tests: the real model, and a tiny one with heads or without."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from extproc.clock import Clock
from extproc.config.encoder import Encoder as Settings
from extproc.inference import bert_graph, minilm
from extproc.inference.heads import Heads, HeadShape
from extproc.inference.local import LocalEncoder
from extproc.telemetry.encoder_metrics import EncoderMetrics
from tests.helpers.graphs import encoder_weights, head_weights

PATIENCE_S = 60.0
LABELS = ["O", "B-PERSON", "I-PERSON", "B-LOCATION", "I-LOCATION"]
TEXTS = [
    "Ada Lovelace lives in London.",
    "x",
    "How do I reset my password, por favor? 日本 \U0001f600",
    "word " * 40,
    "! " * 200,
    "A much longer text about nothing in particular, which goes on for a while. " * 6,
]
_SHAPE = bert_graph.BertShape(layers=2, heads=2, width=16, layer_norm_epsilon=1e-12)
_HEAD_SHAPE = HeadShape(branch_layers=1, rank=2, inner=4, entity_labels=tuple(LABELS))
_VOCABULARY = 30522  # of the real tokenizer


def real_folder() -> Path:
    return minilm.build(minilm.default_folder()).model.parent


def tiny(folder: Path, *, with_heads: bool = True) -> Path:
    """A random small BERT with the real tokenizer, and all heads that a graph may have or none."""
    import onnx

    weights = encoder_weights(_SHAPE, _VOCABULARY, positions=512)
    trained = Heads(_HEAD_SHAPE, head_weights(_SHAPE, _HEAD_SHAPE, weights), "random")
    model = bert_graph.build(_SHAPE, weights, trained if with_heads else None)
    folder.mkdir(exist_ok=True)
    onnx.save(model, str(folder / "model.onnx"))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    (folder / minilm.METADATA_FILE).write_text(json.dumps(metadata))
    shutil.copy(real_folder() / "tokenizer.json", folder)
    return folder


@contextlib.asynccontextmanager
async def local(settings: Settings, registry: CollectorRegistry | None = None) -> AsyncIterator[LocalEncoder]:
    encoder = LocalEncoder(settings, EncoderMetrics(registry or CollectorRegistry()), Clock())
    try:
        yield encoder
    finally:
        await encoder.close()


def vector(embedding: bytes) -> NDArray[np.float32]:
    return np.frombuffer(embedding, dtype="<f4")
