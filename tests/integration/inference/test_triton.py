"""The encoder on a real Triton: the same results as in the process, and every way in which it may be away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from extproc.clock import Clock
from extproc.config.address import TcpAddress
from extproc.config.encoder import Encoder as Settings
from extproc.config.encoder import EncoderDevice
from extproc.config.encoder import TritonEncoder as TritonSettings
from extproc.inference.failure import EncoderError, Reason
from extproc.inference.triton import TritonEncoder
from extproc.telemetry.encoder_metrics import EncoderMetrics
from tests.helpers.encoders import PATIENCE_S, TEXTS, local, tiny, vector
from tests.helpers.triton import RunningTriton, free_ports, running


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("heads"))


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    with running(["encoder"], tmp_path_factory.mktemp("triton") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def heads_server(tmp_path_factory: pytest.TempPathFactory, heads: Path) -> Iterator[RunningTriton]:
    with running(["encoder"], tmp_path_factory.mktemp("triton") / "log", heads) as server:
        yield server


@contextlib.asynccontextmanager
async def remote(
    port: int, folder: Path | None = None, max_waiting: int = 256, registry: CollectorRegistry | None = None
) -> AsyncIterator[TritonEncoder]:
    settings = Settings(
        model_dir=folder, max_waiting=max_waiting, triton=TritonSettings(address=TcpAddress("127.0.0.1", port))
    )
    encoder = TritonEncoder(settings, EncoderMetrics(registry or CollectorRegistry()), Clock())
    try:
        yield encoder
    finally:
        await encoder.close()


async def test_the_real_model_gives_the_same_there(real_server: RunningTriton) -> None:
    registry = CollectorRegistry()
    async with local(Settings(device=EncoderDevice.CPU)) as here:
        expected = await here.encode(TEXTS, PATIENCE_S)
    async with remote(real_server.ports.grpc, registry=registry) as there:
        await there.ready()
        found = await there.encode(TEXTS, PATIENCE_S)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(vector(one.embedding), vector(other.embedding), atol=1e-5)
        assert one.injection == pytest.approx(other.injection, abs=1e-4)
        assert one.complexity == pytest.approx(other.complexity, abs=1e-4)
        assert [(s.start, s.end, s.entity) for s in one.spans] == [(s.start, s.end, s.entity) for s in other.spans]
    assert registry.get_sample_value("extproc_encoder_provider", {"provider": "triton"}) == 1


async def test_every_head_gives_the_same_there(heads_server: RunningTriton, heads: Path) -> None:
    async with local(Settings(model_dir=heads)) as here:
        expected = await here.encode(TEXTS, PATIENCE_S)
    async with remote(heads_server.ports.grpc, heads) as there:
        found = await there.encode(TEXTS, PATIENCE_S)
    for one, other in zip(found, expected, strict=True):
        assert one.injection == pytest.approx(other.injection, abs=1e-4)
        assert one.complexity == pytest.approx(other.complexity, abs=1e-4)
        assert [(s.start, s.end, s.entity) for s in one.spans] == [(s.start, s.end, s.entity) for s in other.spans]
    assert any(encoding.spans for encoding in found)


async def test_more_texts_than_one_request_may_have(heads_server: RunningTriton, heads: Path) -> None:
    texts = [f"text number {number}" for number in range(80)]
    async with local(Settings(model_dir=heads)) as here:
        expected = await here.encode(texts, PATIENCE_S)
    async with remote(heads_server.ports.grpc, heads) as there:
        found = await there.encode(texts, PATIENCE_S)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(vector(one.embedding), vector(other.embedding), atol=1e-4)


async def test_triton_batches_what_arrives_together(heads_server: RunningTriton, heads: Path) -> None:
    def executions() -> float:
        page = httpx.get(f"http://127.0.0.1:{heads_server.ports.metrics}/metrics").text
        line = next(line for line in page.splitlines() if line.startswith("nv_inference_exec_count"))
        return float(line.split()[-1])

    before = executions()
    async with remote(heads_server.ports.grpc, heads) as there:
        await there.encode(["warm"], PATIENCE_S)
        await asyncio.gather(*(there.encode([f"text {number}"], PATIENCE_S) for number in range(64)))
    assert executions() - before < 1 + 64


async def test_too_much_at_a_time_is_overload(heads_server: RunningTriton, heads: Path) -> None:
    async with remote(heads_server.ports.grpc, heads, max_waiting=3) as there:
        with pytest.raises(EncoderError) as caught:
            await there.encode(["x"] * 4, PATIENCE_S)
        assert caught.value.reason is Reason.OVERLOADED
        await there.encode(["x"] * 3, PATIENCE_S)


async def test_nobody_there_fails_and_is_then_left_alone() -> None:
    (port,) = free_ports(1)
    async with remote(port) as there:
        await there.ready()
        for _ in range(5):
            with pytest.raises(EncoderError, match="does not answer") as caught:
                await there.encode(["x"], PATIENCE_S)
            assert caught.value.reason is Reason.UNAVAILABLE
        with pytest.raises(EncoderError, match="lately"):
            await there.encode(["x"], PATIENCE_S)


async def test_a_model_that_is_not_there_is_told(heads_server: RunningTriton, heads: Path) -> None:
    settings = Settings(
        model_dir=heads,
        triton=TritonSettings(address=TcpAddress("127.0.0.1", heads_server.ports.grpc), model="nobody"),
    )
    there = TritonEncoder(settings, EncoderMetrics(CollectorRegistry()), Clock())
    with pytest.raises(EncoderError, match="encoder"):
        await there.encode(["x"], PATIENCE_S)
    await there.close()


async def test_without_a_tokenizer_nothing_is_ready(tmp_path: Path) -> None:
    async with remote(9, tmp_path) as there:
        with pytest.raises(EncoderError, match=r"tokenizer\.json"):
            await there.ready()


async def test_one_that_hangs_is_too_late_and_recovers(heads_server: RunningTriton, heads: Path) -> None:
    registry = CollectorRegistry()
    async with remote(heads_server.ports.grpc, heads, registry=registry) as there:
        await there.encode(["x"], PATIENCE_S)
        os.kill(heads_server.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(EncoderError) as caught:
                await there.encode(["x"], 0.2)
            assert caught.value.reason is Reason.DEADLINE
        finally:
            os.kill(heads_server.process.pid, signal.SIGCONT)
        await there.encode(["x"], PATIENCE_S)
    assert registry.get_sample_value("extproc_encoder_failures_total", {"reason": "deadline"}) == 1
    assert registry.get_sample_value("extproc_encoder_waiting") == 0


async def encode_until_it_fails(there: TritonEncoder) -> None:
    for _ in range(1000):  # unloading is under way when it is answered
        await there.encode(["x"], PATIENCE_S)


async def test_a_model_that_goes_and_comes_back(heads_server: RunningTriton, heads: Path) -> None:
    async with remote(heads_server.ports.grpc, heads) as there:
        await there.encode(["x"], PATIENCE_S)
        with heads_server.client() as client:
            client.post("/v2/repository/models/encoder/unload").raise_for_status()
            with pytest.raises(EncoderError) as caught:
                await encode_until_it_fails(there)
            assert caught.value.reason in {Reason.FAILED, Reason.UNAVAILABLE}
            client.post("/v2/repository/models/encoder/load").raise_for_status()
        await there.encode(["x"], PATIENCE_S)
