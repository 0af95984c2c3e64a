"""A BERT encoder as an ONNX graph, built op by op from its weights. Owns: the mathematics.

The graph takes `input_ids` and `attention_mask` (int64 [batch, tokens]) and gives, all float32:

- `embedding` [batch, width]: the mean over the unmasked tokens, scaled to length one;
- with heads also `injection` [batch] and `complexity` [batch], logits, and `entity_logits` [batch, tokens, labels].
  The labels (a JSON list, `entity_labels`) and the heads' version (`heads_version`) are in the model's metadata.

The heads read a branch: the last layers once more, with their own weights, over the layers below that both share. So
nothing the heads learn can move the embedding. Token types are all zero. Knows nothing of files, tokenizers or
sessions.

`onnx` is needed to build, never to serve, so it is imported where it is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extproc.inference.heads import Heads

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_OPSET = 20  # the first with Gelu
_IR_VERSION = 9  # what opset 20 came with; newer ones only shut older runtimes out
_MASKED = np.float32(-1e9)

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class BertShape:
    layers: int
    heads: int
    width: int
    layer_norm_epsilon: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> BertShape:
        """`config` is a Hugging Face config.json. Raises ValueError for a BERT this graph does not describe."""
        if config["hidden_act"] != "gelu" or config["position_embedding_type"] != "absolute":
            raise ValueError("only BERT with exact GELU and absolute positions is supported")
        return cls(
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            width=config["hidden_size"],
            layer_norm_epsilon=config["layer_norm_eps"],
        )


def build(shape: BertShape, weights: Weights, heads: Heads | None = None) -> ModelProto:
    return BertGraph(shape, weights, heads).model()


class BertGraph:
    def __init__(self, shape: BertShape, weights: Weights, heads: Heads | None = None) -> None:
        self._shape = shape
        self._weights = weights
        self._heads = heads
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}

    def model(self) -> ModelProto:
        import onnx
        from onnx import TensorProto, helper

        bias = self._attention_bias()
        hidden, shared = self._embed(), ""
        for layer in range(self._shape.layers):
            if layer == self._branch_start():
                shared = hidden
            hidden = self._layer(f"encoder.layer.{layer}", hidden, bias)
        self._pool(hidden)
        outputs: dict[str, list[str | int | None]] = {"embedding": ["batch", self._shape.width]}
        if self._heads is not None:
            self._branch(shared, bias, self._heads)
            outputs |= {"injection": ["batch"], "complexity": ["batch"]}
            outputs |= {"entity_logits": ["batch", "tokens", len(self._heads.shape.entity_labels)]}
        tokens: list[str | int | None] = ["batch", "tokens"]
        graph = helper.make_graph(
            self._nodes,
            "bert",
            [helper.make_tensor_value_info(n, TensorProto.INT64, tokens) for n in ("input_ids", "attention_mask")],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in outputs.items()],
            list(self._constants.values()),
        )
        model = self._made(graph)
        if self._heads is not None:
            labels = json.dumps(self._heads.shape.entity_labels)
            helper.set_model_props(model, {"entity_labels": labels, "heads_version": self._heads.version})
        onnx.checker.check_model(model)
        return model

    def _made(self, graph: GraphProto) -> ModelProto:
        from onnx import helper

        opset = helper.make_opsetid("", _OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="extproc")

    def _branch_start(self) -> int | None:
        return None if self._heads is None else self._shape.layers - self._heads.shape.branch_layers

    def _branch(self, shared: str, bias: str, heads: Heads) -> None:
        """The heads' own last layers over the `shared` ones, and the heads on what both give."""
        hidden = shared
        for layer in range(self._shape.layers - heads.shape.branch_layers, self._shape.layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, bias, heads)
        features = self._op("Concat", hidden, shared, axis=-1)
        self._linear(features, "entity", heads, out="entity_logits")
        for name in ("injection", "complexity"):
            self._text_head(name, features, bias, heads)

    def _text_head(self, name: str, features: str, bias: str, heads: Heads) -> None:
        """Learned queries each take a weighted mean over the tokens; a small network reads them together."""
        queries = self._array(f"{name}.queries", heads.weights[f"{name}.queries"])
        scores = self._op("Transpose", self._op("MatMul", features, queries), perm=[0, 2, 1])
        row_bias = self._op("Squeeze", bias, self._array("one", np.array([1])))
        shares = self._op("Softmax", self._op("Add", scores, row_bias), axis=-1)
        pooled = self._op("Reshape", self._op("MatMul", shares, features), self._array("flat", np.array([0, -1])))
        inner = self._op("Gelu", self._linear(pooled, f"{name}.inner", heads))
        self._op("Squeeze", self._linear(inner, name, heads), self._array("one", np.array([1])), out=name)

    def _linear(self, inputs: str, name: str, heads: Heads, out: str | None = None) -> str:
        kernel, bias = (self._array(f"{name}.{part}", heads.weights[f"{name}.{part}"]) for part in ("kernel", "bias"))
        return self._op("Add", self._op("MatMul", inputs, kernel), bias, out=out)

    def _embed(self) -> str:
        words = self._op("Gather", self._weight("embeddings.word_embeddings.weight"), "input_ids")
        length = self._op("Shape", "input_ids", start=1, end=2)
        first, step = self._array("zero", np.array([0])), self._array("one", np.array([1]))
        # Every token is of type 0, so its row is added to the positions once, here.
        table = self._weights["embeddings.position_embeddings.weight"]
        table = table + self._weights["embeddings.token_type_embeddings.weight"][0]
        positions = self._op("Slice", self._array("positions", table), first, length, first, step)
        return self._layer_norm("embeddings.LayerNorm", self._op("Add", words, positions))

    def _attention_bias(self) -> str:
        """[batch, 1, 1, tokens]: 0 where a token may be looked at, hugely negative where it is padding."""
        mask = self._op("Unsqueeze", self._float_mask(), self._array("head_axes", np.array([1, 2])))
        padding = self._op("Sub", self._array("one_f", np.float32(1)), mask)
        return self._op("Mul", padding, self._array("masked", _MASKED))

    def _float_mask(self) -> str:
        from onnx import TensorProto

        return self._op("Cast", "attention_mask", to=TensorProto.FLOAT)

    def _layer(self, name: str, hidden: str, bias: str, heads: Heads | None = None) -> str:
        """A layer of the encoder or, with `heads`, of their branch."""
        context = self._attention(f"{name}.attention.self", hidden, bias, heads)
        attended = self._op("Add", self._dense(f"{name}.attention.output.dense", context, heads), hidden)
        attended = self._layer_norm(f"{name}.attention.output.LayerNorm", attended)
        inner = self._op("Gelu", self._dense(f"{name}.intermediate.dense", attended, heads))
        out = self._op("Add", self._dense(f"{name}.output.dense", inner, heads), attended)
        return self._layer_norm(f"{name}.output.LayerNorm", out)

    def _attention(self, name: str, hidden: str, bias: str, branch: Heads | None) -> str:
        heads, size = self._shape.heads, self._shape.width // self._shape.heads
        split = self._array("split_heads", np.array([0, 0, heads, size]))
        query, key, value = (
            self._op("Reshape", self._dense(f"{name}.{part}", hidden, branch), split)
            for part in ("query", "key", "value")
        )
        query = self._op("Transpose", query, perm=[0, 2, 1, 3])
        scores = self._op("MatMul", query, self._op("Transpose", key, perm=[0, 2, 3, 1]))
        scores = self._op("Mul", scores, self._array("scale", np.float32(size**-0.5)))
        shares = self._op("Softmax", self._op("Add", scores, bias), axis=-1)
        mixed = self._op("MatMul", shares, self._op("Transpose", value, perm=[0, 2, 1, 3]))
        mixed = self._op("Transpose", mixed, perm=[0, 2, 1, 3])
        return self._op("Reshape", mixed, self._array("join_heads", np.array([0, 0, self._shape.width])))

    def _pool(self, hidden: str) -> None:
        mask = self._op("Unsqueeze", self._float_mask(), self._array("width_axis", np.array([2])))
        tokens_axis = self._array("tokens_axis", np.array([1]))
        total = self._op("ReduceSum", self._op("Mul", hidden, mask), tokens_axis, keepdims=0)
        # The division by the number of tokens falls away: the length is scaled to one anyway.
        length = self._op("ReduceL2", total, tokens_axis, keepdims=1)
        floor = self._array("tiny", np.float32(1e-12))
        self._op("Div", total, self._op("Max", length, floor), out="embedding")

    def _dense(self, name: str, hidden: str, heads: Heads | None) -> str:
        kernel = np.ascontiguousarray(self._weights[f"{name}.weight"].T)
        stored = f"{name}.kernel"
        if heads is not None:
            kernel, stored = heads.merged(name, kernel), f"branch.{name}.kernel"
        return self._op("Add", self._op("MatMul", hidden, self._array(stored, kernel)), self._weight(f"{name}.bias"))

    def _layer_norm(self, name: str, hidden: str) -> str:
        scale, shift = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._op("LayerNormalization", hidden, scale, shift, epsilon=self._shape.layer_norm_epsilon)

    def _weight(self, name: str) -> str:
        return self._array(name, self._weights[name])

    def _array(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        out = out or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out
