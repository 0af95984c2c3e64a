"""The pair verifier: its graph against what was trained, its tokens, its files; and the pairs it was trained on."""

from __future__ import annotations

import asyncio
import pathlib

import numpy as np
import onnxruntime
import pytest

from extproc.config.encoder import EncoderDevice
from extproc.errors import DependencyError
from extproc.inference import verifier, weights
from extproc.inference.bert_graph import BertShape
from extproc.inference.training.grammar import Part
from extproc.inference.training.pairs.generate import Composer
from extproc.inference.verifier import Verifier, VerifierShape, files, graph
from extproc.inference.verifier.local import LocalVerifier
from extproc.inference.verifier.tokens import PairTokenizer
from extproc.inference.weights import LAYER_MATRICES
from tests.helpers.graphs import Weights, encoder_weights
from tests.helpers.semantic import verifier_folder

SHAPE = BertShape(layers=2, heads=2, width=8, layer_norm_epsilon=1e-12)
OWN = VerifierShape(first_adapted=1, rank=2, queries=2, inner=4)


def _trained(rng: np.random.Generator, encoder: Weights) -> Weights:
    """Random weights of a verifier for this encoder."""
    sizes: dict[str, tuple[int, ...]] = {
        "judge.queries": (SHAPE.width, 2), "judge.inner.kernel": (2 * SHAPE.width, 4), "judge.inner.bias": (4,),
        "judge.kernel": (4, 1), "judge.bias": (1,),
    }  # fmt: skip
    for layer in range(OWN.first_adapted, SHAPE.layers):
        for part in LAYER_MATRICES:
            name = f"encoder.layer.{layer}.{part}"
            out, into = encoder[f"{name}.weight"].shape
            sizes |= {f"{name}.down": (into, OWN.rank), f"{name}.up": (OWN.rank, out)}
    return {name: rng.normal(scale=0.3, size=size).astype(np.float32) for name, size in sizes.items()}


def test_the_graph_computes_what_was_trained() -> None:
    jax = pytest.importorskip("jax", reason="training is not installed")
    from extproc.inference.training.pairs import model

    encoder = encoder_weights(SHAPE)
    own = _trained(np.random.default_rng(1), encoder)
    built = graph.build(SHAPE, encoder, Verifier(OWN, own, "test"))
    session = onnxruntime.InferenceSession(built.SerializeToString())
    ids = np.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 0, 0, 0]])
    types = np.array([[0, 0, 0, 1, 1, 1], [0, 1, 1, 0, 0, 0]])
    mask = np.array([[1] * 6, [1, 1, 1, 0, 0, 0]])
    (same,) = session.run(None, dict(zip(graph.INPUTS, (ids, types, mask), strict=True)))
    logits = model.logits(SHAPE, OWN, model.frozen(encoder), own, ids, types, mask.astype(np.float32))
    np.testing.assert_allclose(same, jax.nn.sigmoid(logits), atol=0.02)  # training multiplies in bfloat16


def test_the_weights_belong_to_their_report() -> None:
    assert weights.version_of(verifier.WEIGHTS_FILE) in verifier.REPORT_FILE.read_text()
    assert verifier.load().shape == VerifierShape()
    assert verifier.WEIGHTS_FILE.stat().st_size < 2 << 20


def test_two_texts_are_one_sequence() -> None:
    tokenizer = PairTokenizer(verifier_folder() / files.TOKENIZER)
    pair = tokenizer.pair("a cat", "a dog")
    assert pair is not None
    assert pair.types == [0, 0, 0, 0, 1, 1, 1]
    assert pair.ids[0] == 101
    assert pair.ids.count(102) == 2
    assert tokenizer.pair("word " * 300, "word " * 300) is None


def test_it_tells_paraphrases_from_near_misses_whichever_way_round() -> None:
    async def judge() -> list[float]:
        running = LocalVerifier(verifier_folder(), EncoderDevice.CPU, 1)
        await running.ready()
        one, other = "How do I disable two-factor authentication?", "How can I turn off two-factor authentication?"
        pairs = [
            (one, other),
            (other, one),
            (one, "How do I enable two-factor authentication?"),
            ("x " * 600, "y " * 600),
        ]
        judged = [await running.same(*pair, 10.0) for pair in pairs]
        with pytest.raises(DependencyError, match="too long"):
            await running.same("late " * 200, "later " * 200, 1e-6)
        await running.close()
        return judged

    same, turned, other, long = asyncio.run(judge())
    assert same > 0.8
    assert turned == pytest.approx(same, abs=1e-5)
    assert other < 0.5
    assert long == 0


def test_files_that_are_not_there(tmp_path: pathlib.Path) -> None:
    async def load() -> None:
        running = LocalVerifier(tmp_path, EncoderDevice.CPU, 1)
        try:
            await running.ready()
        finally:
            await running.close()

    with pytest.raises(DependencyError):
        asyncio.run(load())


def test_the_same_seed_makes_the_same_pairs_and_parts_share_no_family() -> None:
    words = ["alpha", "bravo", "carrot", "delta", "echo"]
    made = {part: Composer(part, 3, words).pairs(400) for part in Part}
    assert made[Part.TRAINING] == Composer(Part.TRAINING, 3, words).pairs(400)
    assert made[Part.TRAINING] != Composer(Part.TRAINING, 4, words).pairs(400)
    for pairs in made.values():
        share = sum(pair.same for pair in pairs) / len(pairs)
        assert 0.25 < share < 0.6
        assert all(pair.same or pair.one != pair.other for pair in pairs)
