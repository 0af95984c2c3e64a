"""The heads in JAX: frozen encoder layers, a low-rank branch over the last ones, four outputs. Owns: the mathematics
that is theirs alone; names of trained weights are those of `extproc.inference.heads`. Shapes and number formats are
those of `layers`. Knows nothing of texts, files or training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from extproc.inference.bert_graph import BertShape
from extproc.inference.heads import HeadShape
from extproc.inference.training import layers
from extproc.inference.training.layers import Params
from extproc.inference.weights import LAYER_MATRICES


def lower(shape: BertShape, head_shape: HeadShape, weights: Params, ids: Array, mask: Array) -> Array:
    """What the branch starts from: [B, T, D] after the shared layers."""
    hidden = layers.embed(shape, weights, ids)
    for number in range(shape.layers - head_shape.branch_layers):
        hidden = _layer(shape, weights, number, hidden, mask, {})
    return hidden


def outputs(
    shape: BertShape, head_shape: HeadShape, weights: Params, heads: Params, lower_hidden: Array, mask: Array
) -> tuple[Array, Array, Array]:
    """Entity logits [B, T, K], injection logits [B], complexity logits [B]; the heads read [B, T, 2D], the branch's
    last layer beside the layer it started from."""
    hidden = lower_hidden
    for number in range(shape.layers - head_shape.branch_layers, shape.layers):
        hidden = _layer(shape, weights, number, hidden, mask, heads)
    features = jnp.concatenate([hidden, lower_hidden], axis=-1)
    entities = features @ heads["entity.kernel"] + heads["entity.bias"]
    injection, complexity = (layers.judge(heads, name, features, mask) for name in ("injection", "complexity"))
    return entities, injection, complexity


def _layer(shape: BertShape, weights: Params, number: int, hidden: Array, mask: Array, branch: Params) -> Array:
    """Matrices that `branch` has low-rank deltas for get them added."""

    def dense(name: str, inputs: Array) -> Array:
        kernel, weight = weights[f"{name}.kernel"], weights[f"{name}.weight"]
        if f"branch.{name}.down" in branch:
            down, up = branch[f"branch.{name}.down"], branch[f"branch.{name}.up"]
            # The transpose is for going back only; its own gradient would count the same thing twice.
            kernel, weight = kernel + down @ up, jax.lax.stop_gradient(weight + up.T @ down.T)
        return _product(inputs, kernel, weight) + weights[f"{name}.bias"]

    return layers.layer(shape, weights, number, hidden, mask, dense)


def initial(shape: BertShape, head_shape: HeadShape, weights: Params, key: Array) -> dict[str, Array]:
    """Untrained heads: the branch starts out equal to the encoder's own layers."""
    made: dict[str, Array] = {}
    keys = iter(jax.random.split(key, 64))
    for number in range(shape.layers - head_shape.branch_layers, shape.layers):
        for part in LAYER_MATRICES:
            name = f"encoder.layer.{number}.{part}"
            out, width = weights[f"{name}.weight"].shape
            made |= layers.initial_delta(f"branch.{name}", out, width, head_shape.rank, keys)
    features = 2 * shape.width
    made["entity.kernel"] = jax.random.normal(next(keys), (features, len(head_shape.entity_labels))) * 0.02
    made["entity.bias"] = jnp.zeros(len(head_shape.entity_labels))
    for name, queries in (("injection", head_shape.injection_queries), ("complexity", head_shape.complexity_queries)):
        made |= layers.initial_judge(name, features, queries, head_shape.inner, keys)
    return made


def frozen(weights: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
    """The encoder's weights as these functions want them: matrices of layers both ways round, because turning them
    anew in every step would cost more than multiplying."""
    made: dict[str, Array] = {}
    for name, value in weights.items():
        if name.endswith(tuple(f".{part}.weight" for part in LAYER_MATRICES)):
            made[f"{name.removesuffix('.weight')}.kernel"] = jnp.asarray(np.ascontiguousarray(value.T), jnp.float32)
        if value.ndim:
            made[name] = jnp.asarray(value, jnp.float32)
    return made


def _product(x: Array, kernel: Array, weight: Array) -> Array:
    """x [B, T, in] times kernel [in, out] with bfloat16 operands, forth and back; weight is the kernel's transpose."""
    product = jax.custom_vjp(lambda x, kernel, weight: _product_forward(x, kernel, weight)[0])
    product.defvjp(_product_forward, _product_backward)
    out: Array = product(x.reshape(-1, x.shape[-1]), kernel, weight)
    return out.reshape(*x.shape[:-1], -1)


def _product_forward(x: Array, kernel: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
    return layers.fast_product(x, kernel), (x, weight)


def _product_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array, Array]:
    x, weight = kept
    return layers.fast_product(gradient, weight), x.T @ gradient, jnp.zeros_like(weight)
