"""The encoder's graph against the same mathematics written down once more, in plain numpy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from extproc.inference import bert_graph, minilm
from extproc.stack import artifact
from extproc.stack.artifact import Outcome
from tests.helpers.graphs import encoder_weights

SENTENCES = ["A cat sits on the mat.", "x", "How do I reset my password, por favor? 日本"]


def reference(shape: bert_graph.BertShape, w: Any, ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """BERT, mean pooling and normalisation in float64."""
    w = {name: value.astype(np.float64) for name, value in w.items()}
    erf = np.vectorize(__import__("math").erf)

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x**2).mean(-1, keepdims=True) + shape.layer_norm_epsilon)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    batch, tokens = ids.shape
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
    x = norm("embeddings.LayerNorm", x + w["embeddings.position_embeddings.weight"][:tokens])
    for layer in range(shape.layers):
        name = f"encoder.layer.{layer}"
        q, k, v = (
            dense(f"{name}.attention.self.{part}", x).reshape(batch, tokens, shape.heads, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        scores = np.where(mask[:, None, None, :] == 1, scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        context = (shares @ v).transpose(0, 2, 1, 3).reshape(batch, tokens, -1)
        x = norm(f"{name}.attention.output.LayerNorm", dense(f"{name}.attention.output.dense", context) + x)
        inner = dense(f"{name}.intermediate.dense", x)
        inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
        x = norm(f"{name}.output.LayerNorm", dense(f"{name}.output.dense", inner) + x)
    pooled = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
    return x, pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)


def test_a_small_graph_equals_the_reference() -> None:
    shape = bert_graph.BertShape(layers=2, heads=4, width=16, layer_norm_epsilon=1e-12)
    weights = encoder_weights(shape)
    session = onnxruntime.InferenceSession(bert_graph.build(shape, weights).SerializeToString())
    ids = np.array([[1, 2, 3, 4, 5], [7, 8, 0, 0, 0]], dtype=np.int64)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], dtype=np.int64)
    (embedding,) = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
    _, expected = reference(shape, weights, ids, mask)
    np.testing.assert_allclose(embedding, expected, atol=1e-5)


def test_another_kind_of_bert_is_refused() -> None:
    with pytest.raises(ValueError, match="GELU"):
        bert_graph.BertShape.from_config({"hidden_act": "relu", "position_embedding_type": "absolute"})


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise artifact.ArtifactError("no network")

    with pytest.raises(artifact.ArtifactError):
        artifact.ensure(tmp_path / "thing", {"version": "1"}, fail)
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]


def test_a_build_happens_once_per_version(tmp_path: Path) -> None:
    target = tmp_path / "thing"
    outcomes = [
        artifact.ensure(target, {"version": version}, lambda folder, v=version: (folder / v).touch())  # type: ignore[misc]
        for version in ("1", "1", "2")
    ]
    assert outcomes == [Outcome.BUILT, Outcome.ALREADY_THERE, Outcome.BUILT]
    assert sorted(path.name for path in target.iterdir()) == ["2", "manifest.json"]


@pytest.fixture(scope="module")
def built() -> minilm.BuildResult:
    return minilm.build(minilm.default_folder())


@pytest.fixture(scope="module")
def session(built: minilm.BuildResult) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(built.model, options)


def encode(built: minilm.BuildResult, texts: list[str]) -> dict[str, np.ndarray]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(built.tokenizer))
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([one.ids for one in encodings], dtype=np.int64),
        "attention_mask": np.array([one.attention_mask for one in encodings], dtype=np.int64),
    }


def test_equals_the_reference(built: minilm.BuildResult, session: onnxruntime.InferenceSession) -> None:
    import onnx
    from onnx import numpy_helper

    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(str(built.model)).graph.initializer}
    weights = {name: value for name, value in stored.items() if name.endswith((".weight", ".bias"))}
    weights |= {f"{name[:-7]}.weight": value.T for name, value in stored.items() if name.endswith(".kernel")}
    # The graph folds the one token type into the positions.
    weights["embeddings.position_embeddings.weight"] = stored["positions"]
    weights["embeddings.token_type_embeddings.weight"] = np.zeros((2, 384))
    shape = bert_graph.BertShape(layers=6, heads=12, width=384, layer_norm_epsilon=1e-12)
    inputs = encode(built, SENTENCES)
    _, expected = reference(shape, weights, inputs["input_ids"], inputs["attention_mask"])
    np.testing.assert_allclose(session.run(["embedding"], inputs)[0], expected, atol=1e-5)


def test_a_paraphrase_is_nearer_than_another_topic(
    built: minilm.BuildResult, session: onnxruntime.InferenceSession
) -> None:
    texts = ["How can I change my password?", "What is the way to reset my password?", "Rain is expected in Oslo."]
    (question, paraphrase, other) = session.run(["embedding"], encode(built, texts))[0]
    assert question @ paraphrase > 0.8
    assert question @ other < 0.2
    assert np.linalg.norm(question) == pytest.approx(1, abs=1e-5)


def test_tokenizer_neither_cuts_nor_pads(built: minilm.BuildResult) -> None:
    described = json.loads(built.tokenizer.read_text(encoding="utf-8"))
    assert (described["truncation"], described["padding"]) == (None, None)
