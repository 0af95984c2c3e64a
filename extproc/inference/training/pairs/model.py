"""The verifier in JAX: the encoder's frozen layers with low-rank deltas over both texts, and a judge. Owns: the
mathematics that is its alone; names of trained weights are those of `extproc.inference.verifier`. Products with frozen
matrices have bfloat16 operands and float32 sums.
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
from extproc.inference.training import layers
from extproc.inference.training.layers import Params
from extproc.inference.verifier import VerifierShape
from extproc.inference.weights import LAYER_MATRICES


def logits(
    shape: BertShape, own: VerifierShape, weights: Params, trained: Params, ids: Array, types: Array, mask: Array
) -> Array:
    """[B]: above zero where the texts of a row ask for the same. `types` is 1 on the second text's tokens."""
    hidden = layers.embed(shape, weights, ids, types)
    for number in range(shape.layers):
        hidden = _layer(shape, weights, trained if number >= own.first_adapted else {}, number, hidden, mask)
    return layers.judge(trained, "judge", hidden, mask)


def _layer(shape: BertShape, weights: Params, trained: Params, number: int, hidden: Array, mask: Array) -> Array:
    """Matrices that `trained` has low-rank deltas for get them added."""

    def dense(name: str, inputs: Array) -> Array:
        rows = inputs.reshape(-1, inputs.shape[-1])  # on a CPU, gradients of flat products take a third of the time
        out = _frozen_product(rows, weights[f"{name}.kernel"], weights[f"{name}.turned"]) + weights[f"{name}.bias"]
        if f"{name}.down" in trained:
            out = out + (rows @ trained[f"{name}.down"]) @ trained[f"{name}.up"]
        return out.reshape(*inputs.shape[:-1], -1)

    return layers.layer(shape, weights, number, hidden, mask, dense)


def initial(shape: BertShape, own: VerifierShape, encoder: Mapping[str, NDArray[Any]], key: Array) -> dict[str, Array]:
    """Untrained: deltas of nothing, and a judge that knows nothing."""
    made: dict[str, Array] = {}
    keys = iter(jax.random.split(key, 64))
    for number in range(own.first_adapted, shape.layers):
        for part in LAYER_MATRICES:
            name = f"encoder.layer.{number}.{part}"
            out, width = encoder[f"{name}.weight"].shape
            made |= layers.initial_delta(name, out, width, own.rank, keys)
    return made | layers.initial_judge("judge", shape.width, own.queries, own.inner, keys)


def frozen(encoder: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
    """The encoder's weights as `logits` wants them: matrices in bfloat16, both ways round."""
    made: dict[str, Array] = {}
    for name, value in encoder.items():
        if name.endswith(tuple(f".{part}.weight" for part in LAYER_MATRICES)):
            made[f"{name.removesuffix('.weight')}.kernel"] = jnp.asarray(np.ascontiguousarray(value.T), jnp.bfloat16)
            made[f"{name.removesuffix('.weight')}.turned"] = jnp.asarray(value, jnp.bfloat16)
        elif value.ndim:
            made[name] = jnp.asarray(value, jnp.float32)
    return made


def _frozen_product(inputs: Array, kernel: Array, turned: Array) -> Array:
    """[N, in] times [in, out]; `turned` is the kernel's transpose, for the way back."""
    product = jax.custom_vjp(lambda *operands: _forward(*operands)[0])
    product.defvjp(_forward, _backward)
    out: Array = product(inputs, kernel, turned)
    return out


def _forward(inputs: Array, kernel: Array, turned: Array) -> tuple[Array, tuple[Array, Array]]:
    return layers.fast_product(inputs, kernel), (kernel, turned)


def _backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array, Array]:
    kernel, turned = kept
    return layers.fast_product(gradient, turned), jnp.zeros_like(kernel), jnp.zeros_like(turned)
