"""The encoder in the process: real ONNX Runtime, the real model, and a tiny one with every head."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from prometheus_client import CollectorRegistry

from extproc.config.encoder import Encoder as Settings
from extproc.config.encoder import EncoderDevice
from extproc.inference.failure import EncoderError, Reason
from extproc.inference.local import LocalEngine
from extproc.inference.outputs import Output
from extproc.inference.padding import padded
from extproc.inference.session import Session
from extproc.inference.tokens import Tokenizer
from tests.helpers.encoders import PATIENCE_S, TEXTS, local, real_folder, tiny, vector

CPU = Settings(device=EncoderDevice.CPU)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("heads"))


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine(real_folder(), EncoderDevice.CPU, threads=1)


async def test_a_text_gives_what_the_graph_gives() -> None:
    tokens = Tokenizer(real_folder() / "tokenizer.json").tokenize(TEXTS)
    session = onnxruntime.InferenceSession(str(real_folder() / "model.onnx"))
    async with local(CPU) as encoder:
        for one, encoding in zip(tokens, await encoder.encode(TEXTS, PATIENCE_S), strict=True):
            (expected,) = session.run(["embedding"], padded([one]))
            np.testing.assert_allclose(vector(encoding.embedding), expected[0], atol=1e-6)
            assert np.linalg.norm(vector(encoding.embedding)) == pytest.approx(1, abs=1e-5)


def test_a_text_gives_the_same_whatever_it_is_computed_with(engine: LocalEngine) -> None:
    tokens = engine.tokenize(TEXTS)
    together = engine.run(tokens)
    for one, encoding in zip(tokens, together, strict=True):
        (alone,) = engine.run([one])
        np.testing.assert_allclose(vector(encoding.embedding), vector(alone.embedding), atol=1e-6)


def test_heads_give_the_same_whatever_a_text_is_computed_with(heads: Path) -> None:
    engine = LocalEngine(heads, EncoderDevice.CPU, threads=1)
    tokens = engine.tokenize(TEXTS)
    for one, encoding in zip(tokens, engine.run(tokens), strict=True):
        (alone,) = engine.run([one])
        assert encoding.injection == pytest.approx(alone.injection, abs=1e-6)
        assert [(s.start, s.end, s.entity) for s in encoding.spans] == [(s.start, s.end, s.entity) for s in alone.spans]


async def test_heads_are_read_by_their_names(heads: Path) -> None:
    async with local(Settings(model_dir=heads)) as encoder:
        encodings = await encoder.encode(TEXTS, PATIENCE_S)
    session = Session(heads / "model.onnx", EncoderDevice.CPU, 1)
    assert set(session.outputs) == set(Output)
    for text, encoding in zip(TEXTS, encodings, strict=True):
        logits = session.run(Tokenizer(heads / "tokenizer.json").tokenize([text]))
        assert encoding.injection == pytest.approx(1 / (1 + np.exp(-logits[Output.INJECTION][0])), abs=1e-5)
        assert encoding.complexity == pytest.approx(1 / (1 + np.exp(-logits[Output.COMPLEXITY][0])), abs=1e-5)
        for span in encoding.spans:
            assert span.entity in {"PERSON", "LOCATION"}
            assert 0 <= span.start < span.end <= len(text)
            assert text[span.start : span.end].strip() == text[span.start : span.end]
    assert any(encoding.spans for encoding in encodings)


async def test_the_graph_without_heads_has_no_opinions(tmp_path: Path) -> None:
    folder = tiny(tmp_path, with_heads=False)
    assert Session(folder / "model.onnx", EncoderDevice.CPU, 1).outputs == [Output.EMBEDDING]
    async with local(Settings(model_dir=folder, device=EncoderDevice.CPU)) as encoder:
        (encoding,) = await encoder.encode(["Ada Lovelace"], PATIENCE_S)
    assert (encoding.injection, encoding.complexity, encoding.spans) == (None, None, ())


async def test_the_real_model_has_every_head() -> None:
    async with local(CPU) as encoder:
        (encoding,) = await encoder.encode(["Ada Lovelace lives in London."], PATIENCE_S)
    assert encoding.injection is not None
    assert encoding.complexity is not None
    assert [span.entity for span in encoding.spans] == ["PERSON", "LOCATION"]


async def test_a_long_text_by_its_windows() -> None:
    text = "Some prose about the weather in Lisbon, Łódź and 東京. " * 100
    async with local(CPU) as encoder:
        windows = encoder.windows(text)
        encodings = await encoder.encode([text[start:end] for start, end in windows[:3]], PATIENCE_S)
    assert len(windows) > 10
    assert len({encoding.embedding for encoding in encodings}) == 3


async def test_the_loop_runs_while_the_model_does() -> None:
    """Coroutines go on during a pass: the thread lets go of the GIL."""
    async with local(CPU) as encoder:
        await encoder.ready()
        passing = asyncio.ensure_future(encoder.encode(["word " * 500] * 4, PATIENCE_S))
        turns = 0
        while not passing.done():
            await asyncio.sleep(0.001)
            turns += 1
        await passing
    assert turns > 10


async def test_where_it_runs_is_a_metric() -> None:
    registry = CollectorRegistry()
    async with local(CPU, registry) as encoder:
        await encoder.encode(["x"], PATIENCE_S)
    values = {
        name: registry.get_sample_value("extproc_encoder_provider", {"provider": name}) for name in ("cpu", "cuda")
    }
    assert values == {"cpu": 1, "cuda": 0}
    assert registry.get_sample_value("extproc_encoder_batch_texts_count") == 1
    assert registry.get_sample_value("extproc_encoder_duration_seconds_count") == 1


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime may have CUDA"
)
async def test_cuda_that_is_configured_and_not_there_is_an_error() -> None:
    async with local(Settings(device=EncoderDevice.CUDA)) as encoder:
        with pytest.raises(EncoderError, match="CUDA is configured"):
            await encoder.ready()
        with pytest.raises(EncoderError) as caught:
            await encoder.encode(["x"], PATIENCE_S)
    assert caught.value.reason is Reason.UNAVAILABLE


@pytest.mark.parametrize("broken", ["model.onnx", "tokenizer.json"])
async def test_files_that_are_broken_are_named(tmp_path: Path, heads: Path, broken: str) -> None:
    shutil.copytree(heads, tmp_path / "model")
    (tmp_path / "model" / broken).write_text("{}")
    async with local(Settings(model_dir=tmp_path / "model")) as encoder:
        with pytest.raises(EncoderError, match=broken):
            await encoder.ready()
