"""Encoders for tests: the real model, and a tiny one that has every head."""

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
from extproc.inference.local import LocalEncoder
from extproc.inference.outputs import ENTITY_LABELS
from extproc.telemetry.metrics import EncoderMetrics

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
_SHAPE = bert_graph.BertShape(layers=1, heads=2, width=16, layer_norm_epsilon=1e-12)
_VOCABULARY = 30522  # of the real tokenizer


def real_folder() -> Path:
    return minilm.build(minilm.default_folder()).model.parent


def tiny_with_heads(folder: Path) -> Path:
    """A random one-layer BERT with the real tokenizer and all heads that a graph may have."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = bert_graph.build(_SHAPE, _weights())
    rng = np.random.default_rng(2)
    for name, source, outputs in (
        ("injection", "embedding", 1),
        ("complexity", "embedding", 1),
        ("entity_logits", "last_hidden_state", len(LABELS)),
    ):
        kernel = rng.normal(scale=2.0, size=(_SHAPE.width, outputs)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(kernel, f"{name}.kernel"))
        dims: list[str | int] = ["batch", "tokens", outputs]
        if outputs == 1:
            dims = ["batch"]
            model.graph.initializer.append(numpy_helper.from_array(np.array([-1]), f"{name}.flat"))
            model.graph.node.append(helper.make_node("MatMul", [source, f"{name}.kernel"], [f"{name}.column"]))
            model.graph.node.append(helper.make_node("Reshape", [f"{name}.column", f"{name}.flat"], [name]))
        else:
            model.graph.node.append(helper.make_node("MatMul", [source, f"{name}.kernel"], [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
    helper.set_model_props(model, {ENTITY_LABELS: json.dumps(LABELS)})
    onnx.checker.check_model(model)
    folder.mkdir(exist_ok=True)
    onnx.save(model, str(folder / "model.onnx"))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    (folder / minilm.METADATA_FILE).write_text(json.dumps(metadata))
    shutil.copy(real_folder() / "tokenizer.json", folder)
    return folder


def _weights() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    width, inner = _SHAPE.width, _SHAPE.width * 4
    sizes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (_VOCABULARY, width),
        "embeddings.position_embeddings.weight": (512, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    name = "encoder.layer.0"
    dense = {f"attention.self.{part}": (width, width) for part in ("query", "key", "value")}
    dense |= {"attention.output.dense": (width, width), "intermediate.dense": (inner, width)}
    dense |= {"output.dense": (width, inner)}
    for part, size in dense.items():
        sizes |= {f"{name}.{part}.weight": size, f"{name}.{part}.bias": size[:1]}
    for part in ("attention.output", "output"):
        sizes |= {f"{name}.{part}.LayerNorm.weight": (width,), f"{name}.{part}.LayerNorm.bias": (width,)}
    return {name: rng.normal(scale=0.3, size=size).astype(np.float32) for name, size in sizes.items()}


@contextlib.asynccontextmanager
async def local(settings: Settings, registry: CollectorRegistry | None = None) -> AsyncIterator[LocalEncoder]:
    encoder = LocalEncoder(settings, EncoderMetrics(registry or CollectorRegistry()), Clock())
    try:
        yield encoder
    finally:
        await encoder.close()


def vector(embedding: bytes) -> NDArray[np.float32]:
    return np.frombuffer(embedding, dtype="<f4")
