"""The heads in JAX: frozen encoder layers, a low-rank branch over the last ones, four outputs. Owns: the mathematics.

Names of encoder weights are those of the checkpoint (`encoder.layer.4.attention.self.query.weight`, [out, in]); names
of trained weights are those of `extproc.inference.heads`. Shapes: B texts of T tokens, width D. Everything is float32,
save the operands of large products: bfloat16, with a float32 sum, which on recent CPUs is four times as fast.
Knows nothing of texts, files or training.
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
from extproc.inference.heads import BRANCH_MATRICES, HeadShape

Params = Mapping[str, Array]
_MASKED = -1e9


def embed(shape: BertShape, weights: Params, ids: Array) -> Array:
    """[B, T] token ids to [B, T, D], all of token type zero."""
    hidden = weights["embeddings.word_embeddings.weight"][ids]
    hidden = hidden + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    hidden = hidden + weights["embeddings.token_type_embeddings.weight"][0]
    return _layer_norm(shape, weights, "embeddings.LayerNorm", hidden)


def layer(shape: BertShape, weights: Params, number: int, hidden: Array, mask: Array, branch: Params) -> Array:
    """One encoder layer; matrices that `branch` has low-rank deltas for get them added."""
    name = f"encoder.layer.{number}"
    batch, tokens, width = hidden.shape

    def dense(part: str, inputs: Array) -> Array:
        full = f"{name}.{part}"
        kernel, weight = weights[f"{full}.kernel"], weights[f"{full}.weight"]
        if f"branch.{full}.down" in branch:
            down, up = branch[f"branch.{full}.down"], branch[f"branch.{full}.up"]
            # The transpose is for going back only; its own gradient would count the same thing twice.
            kernel, weight = kernel + down @ up, jax.lax.stop_gradient(weight + up.T @ down.T)
        return _product(inputs, kernel, weight) + weights[f"{full}.bias"]

    def heads(part: str) -> Array:
        return dense(f"attention.self.{part}", hidden).reshape(batch, tokens, shape.heads, -1).transpose(0, 2, 1, 3)

    query, key, value = heads("query"), heads("key"), heads("value")
    scores = query @ key.transpose(0, 1, 3, 2) * (width // shape.heads) ** -0.5
    shares = jax.nn.softmax(scores + (1 - mask[:, None, None, :]) * _MASKED, axis=-1)
    context = (shares @ value).transpose(0, 2, 1, 3).reshape(batch, tokens, width)
    attended = dense("attention.output.dense", context) + hidden
    attended = _layer_norm(shape, weights, f"{name}.attention.output.LayerNorm", attended)
    inner = jax.nn.gelu(dense("intermediate.dense", attended), approximate=False)
    return _layer_norm(shape, weights, f"{name}.output.LayerNorm", dense("output.dense", inner) + attended)


def lower(shape: BertShape, head_shape: HeadShape, weights: Params, ids: Array, mask: Array) -> Array:
    """What the branch starts from: [B, T, D] after the shared layers."""
    hidden = embed(shape, weights, ids)
    for number in range(shape.layers - head_shape.branch_layers):
        hidden = layer(shape, weights, number, hidden, mask, {})
    return hidden


def outputs(
    shape: BertShape, head_shape: HeadShape, weights: Params, heads: Params, lower_hidden: Array, mask: Array
) -> tuple[Array, Array, Array]:
    """Entity logits [B, T, K], injection logits [B], complexity logits [B]."""
    hidden = lower_hidden
    for number in range(shape.layers - head_shape.branch_layers, shape.layers):
        hidden = layer(shape, weights, number, hidden, mask, heads)
    return judge(heads, jnp.concatenate([hidden, lower_hidden], axis=-1), mask)


def judge(heads: Params, features: Array, mask: Array) -> tuple[Array, Array, Array]:
    """The heads proper, over [B, T, 2D]: the branch's last layer beside the layer it started from."""
    entities = features @ heads["entity.kernel"] + heads["entity.bias"]
    return entities, _judge_text(heads, "injection", features, mask), _judge_text(heads, "complexity", features, mask)


def _judge_text(heads: Params, name: str, features: Array, mask: Array) -> Array:
    """Learned queries each take a weighted mean over the tokens; a small network reads them together."""
    scores = features @ heads[f"{name}.queries"] + (1 - mask[:, :, None]) * _MASKED
    pooled = jnp.einsum("btq,btd->bqd", jax.nn.softmax(scores, axis=1), features)
    pooled = pooled.reshape(pooled.shape[0], -1)
    inner = jax.nn.gelu(pooled @ heads[f"{name}.inner.kernel"] + heads[f"{name}.inner.bias"], approximate=False)
    return (inner @ heads[f"{name}.kernel"] + heads[f"{name}.bias"])[:, 0]


def initial(shape: BertShape, head_shape: HeadShape, weights: Params, key: Array) -> dict[str, Array]:
    """Untrained heads: the branch starts out equal to the encoder's own layers."""
    made: dict[str, Array] = {}
    keys = iter(jax.random.split(key, 64))
    for number in range(shape.layers - head_shape.branch_layers, shape.layers):
        for part in BRANCH_MATRICES:
            full = f"encoder.layer.{number}.{part}"
            out, width = weights[f"{full}.weight"].shape
            made[f"branch.{full}.down"] = jax.random.normal(next(keys), (width, head_shape.rank)) * width**-0.5
            made[f"branch.{full}.up"] = jnp.zeros((head_shape.rank, out))
    features = 2 * shape.width
    made["entity.kernel"] = jax.random.normal(next(keys), (features, len(head_shape.entity_labels))) * 0.02
    made["entity.bias"] = jnp.zeros(len(head_shape.entity_labels))
    for name, queries in (("injection", head_shape.injection_queries), ("complexity", head_shape.complexity_queries)):
        made[f"{name}.queries"] = jax.random.normal(next(keys), (features, queries)) * 0.02
        pooled = features * queries
        made[f"{name}.inner.kernel"] = jax.random.normal(next(keys), (pooled, head_shape.inner)) * pooled**-0.5
        made[f"{name}.inner.bias"] = jnp.zeros(head_shape.inner)
        made[f"{name}.kernel"] = jax.random.normal(next(keys), (head_shape.inner, 1)) * head_shape.inner**-0.5
        made[f"{name}.bias"] = jnp.zeros(1)
    return made


def frozen(weights: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
    """The encoder's weights as these functions want them: matrices of layers both ways round, because turning them
    anew in every step would cost more than multiplying."""
    made: dict[str, Array] = {}
    for name, value in weights.items():
        if name.endswith(tuple(f".{part}.weight" for part in BRANCH_MATRICES)):
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
    return _fast(x, kernel), (x, weight)


def _product_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array, Array]:
    x, weight = kept
    return _fast(gradient, weight), x.T @ gradient, jnp.zeros_like(weight)


def _fast(one: Array, other: Array) -> Array:
    return jnp.matmul(one.astype(jnp.bfloat16), other.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


def _layer_norm(shape: BertShape, weights: Params, name: str, x: Array) -> Array:
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + shape.layer_norm_epsilon)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]
