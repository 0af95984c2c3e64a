"""The verifier in JAX: the encoder's frozen layers with low-rank deltas over both texts, and a judge. Owns: the
mathematics. Names of encoder weights are those of its checkpoint, of trained weights those of
`extproc.inference.verifier`. Products with frozen matrices have bfloat16 operands and float32 sums.
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
from extproc.inference.verifier import ADAPTED_MATRICES, VerifierShape

Params = Mapping[str, Array]
_MASKED = -1e9


def logits(
    shape: BertShape, own: VerifierShape, weights: Params, trained: Params, ids: Array, types: Array, mask: Array
) -> Array:
    """[B]: above zero where the texts of a row ask for the same. `types` is 1 on the second text's tokens."""
    hidden = _embed(shape, weights, ids, types)
    for number in range(shape.layers):
        hidden = _layer(shape, weights, trained if number >= own.first_adapted else {}, number, hidden, mask)
    return _judge(trained, hidden, mask)


def _embed(shape: BertShape, weights: Params, ids: Array, types: Array) -> Array:
    hidden = weights["embeddings.word_embeddings.weight"][ids]
    hidden = hidden + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    hidden = hidden + weights["embeddings.token_type_embeddings.weight"][types]
    return _layer_norm(shape, weights, "embeddings.LayerNorm", hidden)


def _layer(shape: BertShape, weights: Params, trained: Params, number: int, hidden: Array, mask: Array) -> Array:
    name = f"encoder.layer.{number}"
    batch, tokens, width = hidden.shape

    def dense(part: str, inputs: Array) -> Array:
        full = f"{name}.{part}"
        rows = inputs.reshape(-1, inputs.shape[-1])  # on a CPU, gradients of flat products take a third of the time
        out = _frozen_product(rows, weights[f"{full}.kernel"], weights[f"{full}.turned"]) + weights[f"{full}.bias"]
        if f"{full}.down" in trained:
            out = out + (rows @ trained[f"{full}.down"]) @ trained[f"{full}.up"]
        return out.reshape(batch, tokens, -1)

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


def _judge(trained: Params, hidden: Array, mask: Array) -> Array:
    scores = hidden @ trained["judge.queries"] + (1 - mask[:, :, None]) * _MASKED
    pooled = jnp.einsum("btq,btd->bqd", jax.nn.softmax(scores, axis=1), hidden).reshape(hidden.shape[0], -1)
    inner = jax.nn.gelu(pooled @ trained["judge.inner.kernel"] + trained["judge.inner.bias"], approximate=False)
    return (inner @ trained["judge.kernel"] + trained["judge.bias"])[:, 0]


def initial(shape: BertShape, own: VerifierShape, encoder: Mapping[str, NDArray[Any]], key: Array) -> dict[str, Array]:
    """Untrained: deltas of nothing, and a judge that knows nothing."""
    made: dict[str, Array] = {}
    keys = iter(jax.random.split(key, 64))
    for number in range(own.first_adapted, shape.layers):
        for part in ADAPTED_MATRICES:
            full = f"encoder.layer.{number}.{part}"
            out, width = encoder[f"{full}.weight"].shape
            made[f"{full}.down"] = jax.random.normal(next(keys), (width, own.rank)) * width**-0.5
            made[f"{full}.up"] = jnp.zeros((own.rank, out))
    pooled = shape.width * own.queries
    made["judge.queries"] = jax.random.normal(next(keys), (shape.width, own.queries)) * 0.02
    made["judge.inner.kernel"] = jax.random.normal(next(keys), (pooled, own.inner)) * pooled**-0.5
    made["judge.inner.bias"] = jnp.zeros(own.inner)
    made["judge.kernel"] = jax.random.normal(next(keys), (own.inner, 1)) * own.inner**-0.5
    made["judge.bias"] = jnp.zeros(1)
    return made


def frozen(encoder: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
    """The encoder's weights as `logits` wants them: matrices in bfloat16, both ways round."""
    made: dict[str, Array] = {}
    for name, value in encoder.items():
        if name.endswith(tuple(f".{part}.weight" for part in ADAPTED_MATRICES)):
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
    return _fast(inputs, kernel), (kernel, turned)


def _backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array, Array]:
    kernel, turned = kept
    return _fast(gradient, turned), jnp.zeros_like(kernel), jnp.zeros_like(turned)


def _fast(one: Array, other: Array) -> Array:
    return jnp.matmul(one.astype(jnp.bfloat16), other, preferred_element_type=jnp.float32)


def _layer_norm(shape: BertShape, weights: Params, name: str, x: Array) -> Array:
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + shape.layer_norm_epsilon)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]
