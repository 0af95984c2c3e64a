"""The verifier as an ONNX graph: the encoder's layers with the deltas merged in, over two texts, and the judge.

It takes `input_ids`, `token_types` and `attention_mask` (int64 [batch, tokens]) and gives `same` (float32 [batch]): the
probability that the answer to one text answers the other. Owns the mathematics. `onnx` is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from extproc.inference.bert_graph import BertGraph, BertShape, Weights
from extproc.inference.verifier import Verifier

if TYPE_CHECKING:
    from onnx import ModelProto

INPUTS = ("input_ids", "token_types", "attention_mask")
OUTPUT = "same"


def build(shape: BertShape, encoder: Weights, verifier: Verifier) -> ModelProto:
    return _Pairs(shape, verifier.merged(encoder), verifier).model()


class _Pairs(BertGraph):
    """The encoder's graph, with types of tokens, and the judge in place of the mean."""

    def __init__(self, shape: BertShape, weights: Weights, verifier: Verifier) -> None:
        super().__init__(shape, weights)
        self._verifier = verifier

    def model(self) -> ModelProto:
        import onnx
        from onnx import TensorProto, helper

        hidden = self._embed()
        bias = self._attention_bias()
        for layer in range(self._shape.layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, bias)
        self._judge(hidden, bias)
        graph = helper.make_graph(
            self._nodes,
            "verifier",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in INPUTS],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch"])],
            list(self._constants.values()),
        )
        made = self._made(graph)
        helper.set_model_props(made, {"verifier_version": self._verifier.version})
        onnx.checker.check_model(made)
        return made

    def _embed(self) -> str:
        words = self._op("Gather", self._weight("embeddings.word_embeddings.weight"), "input_ids")
        types = self._op("Gather", self._weight("embeddings.token_type_embeddings.weight"), "token_types")
        length = self._op("Shape", "input_ids", start=1, end=2)
        first, step = self._array("zero", np.array([0])), self._array("one", np.array([1]))
        table = self._weight("embeddings.position_embeddings.weight")
        positions = self._op("Slice", table, first, length, first, step)
        placed = self._op("Add", self._op("Add", words, types), positions)
        return self._layer_norm("embeddings.LayerNorm", placed)

    def _judge(self, hidden: str, bias: str) -> None:
        """Learned queries each take a weighted mean over the tokens; a small network reads them together."""
        scores = self._op("Transpose", self._op("MatMul", hidden, self._own("judge.queries")), perm=[0, 2, 1])
        row_bias = self._op("Squeeze", bias, self._array("one", np.array([1])))
        shares = self._op("Softmax", self._op("Add", scores, row_bias), axis=-1)
        pooled = self._op("Reshape", self._op("MatMul", shares, hidden), self._array("flat", np.array([0, -1])))
        inner = self._op(
            "Add", self._op("MatMul", pooled, self._own("judge.inner.kernel")), self._own("judge.inner.bias")
        )
        logit = self._op("MatMul", self._op("Gelu", inner), self._own("judge.kernel"))
        logit = self._op("Add", logit, self._own("judge.bias"))
        self._op("Sigmoid", self._op("Squeeze", logit, self._array("one", np.array([1]))), out=OUTPUT)

    def _own(self, name: str) -> str:
        return self._array(name, self._verifier.weights[name])
