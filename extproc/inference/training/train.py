"""One training run. Owns: the loss, the schedule, what is cached. Knows nothing of how texts are made or judged."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from extproc.inference.bert_graph import BertShape
from extproc.inference.heads import HeadShape
from extproc.inference.training import model
from extproc.inference.training.batches import UNKNOWN, Batch
from extproc.inference.training.layers import Params

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Schedule:
    epochs: int = 3
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    feature_dropout: float = 0.05
    entity_weight: float = 1.0
    injection_weight: float = 1.0
    complexity_weight: float = 0.3
    label_smoothing: float = 0.02
    seed: int = 1


def lower_features(
    shape: BertShape, head_shape: HeadShape, weights: Params, batches: Sequence[Batch], progress: Progress
) -> list[NDArray[np.float16]]:
    """What the frozen layers give for every batch, computed once: training needs only the branch."""
    run = jax.jit(functools.partial(model.lower, shape, head_shape))
    features: list[NDArray[np.float16]] = []
    started = time.monotonic()
    for number, batch in enumerate(batches):
        features.append(np.asarray(run(weights, batch.ids, batch.mask), np.float16))
        if number % 100 == 0:
            progress(f"features {number}/{len(batches)} {time.monotonic() - started:.0f} s")
    return features


def train(
    shape: BertShape,
    head_shape: HeadShape,
    weights: Params,
    batches: Sequence[Batch],
    features: Sequence[NDArray[np.float16]],
    schedule: Schedule,
    progress: Progress,
) -> dict[str, Array]:
    """Trained heads, by the names of `extproc.inference.heads`."""
    steps = schedule.epochs * len(batches)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, schedule.learning_rate, max(1, int(schedule.warmup * steps)), steps, schedule.learning_rate * 0.02
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=schedule.weight_decay))
    key = jax.random.key(schedule.seed)
    heads = model.initial(shape, head_shape, weights, key)
    state = optimizer.init(heads)
    branch_weights = _of_branch(shape, head_shape, weights)

    def step(
        heads: dict[str, Array], state: optax.OptState, hidden: Array, batch: tuple[Array, ...], key: Array
    ) -> tuple[dict[str, Array], optax.OptState, Array]:
        def objective(heads: dict[str, Array]) -> tuple[Array, Array]:
            losses = _losses(shape, head_shape, schedule, branch_weights, heads, hidden, batch, key)
            return losses.sum(), losses

        gradients, losses = jax.grad(objective, has_aux=True)(heads)
        updates, state = optimizer.update(gradients, state, heads)
        return optax.apply_updates(heads, updates), state, losses

    fast_step = jax.jit(step)
    order = np.random.default_rng(schedule.seed)
    started, recent = time.monotonic(), []
    done = 0
    for epoch in range(schedule.epochs):
        for number in order.permutation(len(batches)):
            batch = batches[number]
            arrays = (batch.mask, batch.labels, batch.injection, batch.complexity)
            hidden = features[number].astype(np.float32)
            heads, state, losses = fast_step(heads, state, hidden, arrays, jax.random.fold_in(key, done))
            recent.append(np.asarray(losses))
            done += 1
            if done % 50 == 0:
                mean = np.mean(recent[-50:], axis=0).round(4)
                took = f"{time.monotonic() - started:.0f} s, CPU {time.process_time():.0f} s"
                progress(f"epoch {epoch} step {done}/{steps} loss {mean} {took}")
    return heads


def _of_branch(shape: BertShape, head_shape: HeadShape, weights: Params) -> dict[str, Array]:
    """Only the weights that the branch reads: the others need not travel into every step."""
    last = range(shape.layers - head_shape.branch_layers, shape.layers)
    prefixes = tuple(f"encoder.layer.{number}." for number in last)
    return {name: jnp.asarray(value) for name, value in weights.items() if name.startswith(prefixes)}


def _losses(
    shape: BertShape,
    head_shape: HeadShape,
    schedule: Schedule,
    weights: Params,
    heads: Params,
    hidden: Array,
    batch: tuple[Array, ...],
    key: Array,
) -> Array:
    """[3]: entities, injection, complexity, each weighted."""
    mask, labels, injection, complexity = batch
    kept = jax.random.bernoulli(key, 1 - schedule.feature_dropout, hidden.shape)
    hidden = jnp.where(kept, hidden / (1 - schedule.feature_dropout), 0)
    entity_logits, injection_logits, complexity_logits = model.outputs(shape, head_shape, weights, heads, hidden, mask)
    known = labels != UNKNOWN
    per_token = optax.softmax_cross_entropy_with_integer_labels(entity_logits, jnp.where(known, labels, 0))
    entity = jnp.where(known, per_token, 0).sum() / jnp.maximum(known.sum(), 100)
    smooth = schedule.label_smoothing
    return jnp.stack(
        [
            schedule.entity_weight * entity,
            schedule.injection_weight * _binary(injection_logits, injection * (1 - 2 * smooth) + smooth),
            schedule.complexity_weight * _binary(complexity_logits, complexity),
        ]
    )


def _binary(logits: Array, targets: Array) -> Array:
    known = ~jnp.isnan(targets)
    losses = optax.sigmoid_binary_cross_entropy(logits, jnp.where(known, targets, 0.5))
    return jnp.where(known, losses, 0).sum() / jnp.maximum(known.sum(), 4)
