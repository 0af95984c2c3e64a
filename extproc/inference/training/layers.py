"""An encoder layer in JAX, and what both trainings put on top: low-rank deltas and a judge of texts. Owns: that
mathematics. Names of encoder weights are those of the checkpoint (`encoder.layer.4.attention.self.query.weight`, [out,
in]). Shapes: B texts of T tokens, width D. Everything is float32, save the operands of large products: bfloat16, with a
float32 sum, which on recent CPUs is four times as fast. How a layer's matrices are multiplied is the caller's: it says
what has a gradient. Knows nothing of texts, files or training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
from jax import Array

from extproc.inference.bert_graph import BertShape

Params = Mapping[str, Array]
Dense = Callable[[str, Array], Array]
"""(a matrix's full name, [B, T, in]) to [B, T, out], bias included."""
_MASKED = -1e9


def embed(shape: BertShape, weights: Params, ids: Array, types: Array | int = 0) -> Array:
    """[B, T] token ids (and token types) to [B, T, D]."""
    hidden = weights["embeddings.word_embeddings.weight"][ids]
    hidden = hidden + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    hidden = hidden + weights["embeddings.token_type_embeddings.weight"][types]
    return _layer_norm(shape, weights, "embeddings.LayerNorm", hidden)


def layer(shape: BertShape, weights: Params, number: int, hidden: Array, mask: Array, dense: Dense) -> Array:
    """One encoder layer over [B, T, D]; `mask` [B, T] is 0 at padding."""
    name = f"encoder.layer.{number}"
    batch, tokens, width = hidden.shape

    def heads(part: str) -> Array:
        projected = dense(f"{name}.attention.self.{part}", hidden)
        return projected.reshape(batch, tokens, shape.heads, -1).transpose(0, 2, 1, 3)

    query, key, value = heads("query"), heads("key"), heads("value")
    scores = query @ key.transpose(0, 1, 3, 2) * (width // shape.heads) ** -0.5
    shares = jax.nn.softmax(scores + (1 - mask[:, None, None, :]) * _MASKED, axis=-1)
    context = (shares @ value).transpose(0, 2, 1, 3).reshape(batch, tokens, width)
    attended = dense(f"{name}.attention.output.dense", context) + hidden
    attended = _layer_norm(shape, weights, f"{name}.attention.output.LayerNorm", attended)
    inner = jax.nn.gelu(dense(f"{name}.intermediate.dense", attended), approximate=False)
    return _layer_norm(shape, weights, f"{name}.output.LayerNorm", dense(f"{name}.output.dense", inner) + attended)


def judge(trained: Params, name: str, features: Array, mask: Array) -> Array:
    """[B] logits of [B, T, D]: learned queries each take a weighted mean over the tokens; a small network reads them
    together."""
    scores = features @ trained[f"{name}.queries"] + (1 - mask[:, :, None]) * _MASKED
    pooled = jnp.einsum("btq,btd->bqd", jax.nn.softmax(scores, axis=1), features)
    pooled = pooled.reshape(pooled.shape[0], -1)
    inner = jax.nn.gelu(pooled @ trained[f"{name}.inner.kernel"] + trained[f"{name}.inner.bias"], approximate=False)
    return (inner @ trained[f"{name}.kernel"] + trained[f"{name}.bias"])[:, 0]


def initial_judge(name: str, features: int, queries: int, inner: int, keys: Iterator[Array]) -> dict[str, Array]:
    """A judge of `features` numbers a token that knows nothing."""
    pooled = features * queries
    return {
        f"{name}.queries": jax.random.normal(next(keys), (features, queries)) * 0.02,
        f"{name}.inner.kernel": jax.random.normal(next(keys), (pooled, inner)) * pooled**-0.5,
        f"{name}.inner.bias": jnp.zeros(inner),
        f"{name}.kernel": jax.random.normal(next(keys), (inner, 1)) * inner**-0.5,
        f"{name}.bias": jnp.zeros(1),
    }


def initial_delta(name: str, out: int, width: int, rank: int, keys: Iterator[Array]) -> dict[str, Array]:
    """A pair whose product `down @ up` [width, out] is zero."""
    down = jax.random.normal(next(keys), (width, rank)) * width**-0.5
    return {f"{name}.down": down, f"{name}.up": jnp.zeros((rank, out))}


def fast_product(one: Array, other: Array) -> Array:
    return jnp.matmul(one.astype(jnp.bfloat16), other.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


def _layer_norm(shape: BertShape, weights: Params, name: str, x: Array) -> Array:
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + shape.layer_norm_epsilon)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]
