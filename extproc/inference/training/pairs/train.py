"""One training run of the verifier. Owns: batches, the loss, the schedule. Knows nothing of how pairs are made."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from extproc.inference.bert_graph import BertShape
from extproc.inference.training.pairs import model
from extproc.inference.training.pairs.generate import Pair
from extproc.inference.verifier import Verifier, VerifierShape
from extproc.inference.verifier.tokens import PairTokenizer

Progress = Callable[[str], None]
BUCKETS = (24, 32, 40, 56, 80)
_TOKENS_PER_BATCH = 2048


@dataclass(frozen=True)
class Schedule:
    learning_rate: float = 1.5e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    label_smoothing: float = 0.02
    seed: int = 1


@dataclass
class Batch:
    """B pairs padded to T tokens; `same` is NaN in rows that are there for the shape only."""

    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    mask: NDArray[np.float32]
    same: NDArray[np.float32]
    index: NDArray[np.int64]


def batches(pairs: Sequence[Pair], tokenizer: PairTokenizer) -> list[Batch]:
    """All pairs that fit the largest bucket, those of like length together."""
    rows = [row for pair in pairs if (row := tokenizer.pair(pair.one, pair.other)) is not None]
    if len(rows) != len(pairs):
        raise ValueError("a pair is too long for the encoder")
    made = []
    for bucket in BUCKETS:
        below = max((other for other in BUCKETS if other < bucket), default=0)
        members = [index for index, row in enumerate(rows) if below < len(row.ids) <= bucket]
        size = _TOKENS_PER_BATCH // bucket
        for start in range(0, len(members), size):
            chunk = members[start : start + size]
            batch = Batch(
                np.zeros((size, bucket), np.int32), np.zeros((size, bucket), np.int32),
                np.zeros((size, bucket), np.float32), np.full(size, np.nan, np.float32), np.full(size, -1, np.int64),
            )  # fmt: skip
            batch.mask[:, 0] = 1
            for place, index in enumerate(chunk):
                count = len(rows[index].ids)
                batch.ids[place, :count], batch.types[place, :count] = rows[index].ids, rows[index].types
                batch.mask[place, :count] = 1
                batch.same[place], batch.index[place] = pairs[index].same, index
            made.append(batch)
    return made


def train(
    shape: BertShape,
    own: VerifierShape,
    encoder: dict[str, NDArray[np.float32]],
    made: Sequence[Batch],
    schedule: Schedule,
    progress: Progress,
    before: Verifier | None = None,
) -> dict[str, Array]:
    """Trained weights, by the names of `extproc.inference.verifier`. Each batch is seen once."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, schedule.learning_rate, max(1, int(schedule.warmup * len(made))), len(made), schedule.learning_rate * 0.02
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=schedule.weight_decay))
    weights = model.frozen(encoder)
    trained = model.initial(shape, own, encoder, jax.random.key(schedule.seed))
    if before is not None:
        trained = {name: jnp.asarray(value) for name, value in before.weights.items()}
    state = optimizer.init(trained)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(
        trained: dict[str, Array], state: optax.OptState, weights: dict[str, Array], batch: tuple[Array, ...]
    ) -> tuple[dict[str, Array], optax.OptState, Array]:
        def objective(trained: dict[str, Array]) -> Array:
            ids, types, mask, same = batch
            known = ~jnp.isnan(same)
            targets = jnp.where(known, same, 0.5) * (1 - 2 * schedule.label_smoothing) + schedule.label_smoothing
            losses = optax.sigmoid_binary_cross_entropy(
                model.logits(shape, own, weights, trained, ids, types, mask), targets
            )
            return jnp.where(known, losses, 0).sum() / jnp.maximum(known.sum(), 1)

        loss, gradients = jax.value_and_grad(objective)(trained)
        updates, state = optimizer.update(gradients, state, trained)
        return optax.apply_updates(trained, updates), state, loss

    began_s, recent = time.monotonic(), []
    for done, number in enumerate(np.random.default_rng(schedule.seed).permutation(len(made)), start=1):
        batch = made[number]
        trained, state, loss = step(trained, state, weights, (batch.ids, batch.types, batch.mask, batch.same))
        recent.append(float(loss))
        if done % 20 == 0:
            took = f"{time.monotonic() - began_s:.0f} s, CPU {time.process_time():.0f} s"
            progress(f"step {done}/{len(made)} loss {np.mean(recent[-50:]):.4f} {took}")
    return trained
