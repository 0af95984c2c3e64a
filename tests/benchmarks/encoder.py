"""What the encoder costs: one pass by length, texts a second alone and together, cutting a prompt, memory.

`python tests/benchmarks/encoder.py [--device cpu|cuda] [--threads 1 2] [--triton]`

`--triton` starts a Triton of its own and compares token ids going in with text going in. On a machine with a GPU and
onnxruntime-gpu, `--device cuda` measures there, and `--triton-address host:port` a Triton that runs already.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import psutil
import tritonclient.grpc.aio as triton
from prometheus_client import CollectorRegistry

from extproc.clock import Clock
from extproc.config.address import TcpAddress
from extproc.config.encoder import Encoder as Settings
from extproc.config.encoder import EncoderDevice, TritonEncoder
from extproc.inference.interface import Encoder
from extproc.inference.local import LocalEncoder, LocalEngine
from extproc.inference.minilm import default_folder
from extproc.inference.opening import RunningEncoder
from extproc.inference.triton import TritonEncoder as OnTriton
from extproc.inference.windows import windows
from extproc.telemetry.encoder_metrics import EncoderMetrics
from tests.helpers.triton import running

PROSE = (
    "The committee met on Thursday to discuss the harvest, the new bridge over the river and what it would cost. "
    "Nobody agreed about the bridge, although most had come by boat. "
)
LENGTHS = (16, 64, 128, 256, 512)
FOREVER_S = 600.0


def text_of(tokens: int) -> str:
    """Prose that comes to about so many tokens, [CLS] and [SEP] included."""
    words = (PROSE * 20).split()
    return " ".join(words[: max(1, round((tokens - 2) / 1.12))])


def median_ms(work: Callable[[], object], times: int) -> float:
    took = []
    for _ in range(times):
        began_s = time.perf_counter()
        work()
        took.append(time.perf_counter() - began_s)
    return statistics.median(took) * 1e3


async def texts_per_second(encoder: Encoder, texts: Sequence[str], callers: int, seconds: float) -> tuple[float, float]:
    """Texts a second and the median latency in ms, with so many callers of one text at a time."""
    took: list[float] = []
    ends_s = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        while (began_s := time.perf_counter()) < ends_s:
            await encoder.encode([texts[(number + len(took)) % len(texts)]], FOREVER_S)
            took.append(time.perf_counter() - began_s)

    began_s = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(callers)))
    return len(took) / (time.perf_counter() - began_s), statistics.median(took) * 1e3


def passes(device: EncoderDevice, threads: int, times: int) -> None:
    before = psutil.Process().memory_info().rss
    began_s = time.perf_counter()
    engine = LocalEngine(default_folder(), device, threads)
    loaded_s = time.perf_counter() - began_s
    memory = (psutil.Process().memory_info().rss - before) >> 20
    print(f"{engine.provider}, {threads} threads: loaded in {loaded_s:.2f} s, {memory} MiB more")
    for tokens in LENGTHS:
        cells = []
        for size in (1, 4, 16):
            batch = engine.tokenize([text_of(tokens)] * size)
            engine.run(batch)
            ms = median_ms(functools.partial(engine.run, batch), max(3, times // size))
            cells.append(f"{size:3} texts {ms:7.1f} ms {ms / size:6.1f} ms/text")
        print(f"  {len(batch[0].ids):3} tokens: " + " | ".join(cells))
    print(f"  tokenising 128 tokens: {median_ms(lambda: engine.tokenize([text_of(128)]), 200) * 1e3:.0f} µs")


async def service(name: str, encoder: RunningEncoder, seconds: float) -> None:
    await encoder.ready()
    for label, texts in (("128 tokens", [text_of(128)]), ("mixed lengths", [text_of(t) for t in (16, 40, 64, 128)])):
        await encoder.encode(texts, FOREVER_S)
        for callers in (1, 4, 16):
            rate, ms = await texts_per_second(encoder, texts, callers, seconds)
            print(f"  {name}, {label}, {callers:2} callers: {rate:6.1f} texts/s, p50 {ms:6.1f} ms")
    await encoder.close()


def cutting() -> None:
    for name, text in (("English", PROSE * 1200), ("Chinese", "今天天气很好我们去公园散步" * 5500)):
        ms = median_ms(functools.partial(windows, text), 50)
        print(f"cutting {len(text.encode()) // 1000} KB of {name} into {len(windows(text))} windows: {ms:.2f} ms")


async def text_in(address: str, text: str, times: int) -> float:
    """Median ms of one text to `minilm`, which tokenises on Triton."""
    client = triton.InferenceServerClient(address)

    async def one() -> None:
        tensor = triton.InferInput("TEXT", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()]], dtype=object))
        await client.infer("minilm", [tensor], outputs=[triton.InferRequestedOutput("EMBEDDING")])

    ms = await median_async_ms(one, times)
    await client.close()
    return ms


async def median_async_ms(work: Callable[[], Awaitable[object]], times: int) -> float:
    await work()
    took = []
    for _ in range(times):
        began_s = time.perf_counter()
        await work()
        took.append(time.perf_counter() - began_s)
    return statistics.median(took) * 1e3


@contextlib.contextmanager
def triton_at(address: str | None) -> Iterator[str]:
    if address is not None:
        yield address
        return
    with tempfile.TemporaryDirectory() as folder, running(["encoder", "minilm"], Path(folder) / "log") as server:
        yield f"127.0.0.1:{server.ports.grpc}"


async def on_triton(address: str, own: bool, seconds: float, times: int) -> None:
    host, port = address.rsplit(":", 1)
    settings = Settings(triton=TritonEncoder(address=TcpAddress(host, int(port))))

    def encoder() -> OnTriton:
        return OnTriton(settings, EncoderMetrics(CollectorRegistry()), Clock())

    if own:
        for tokens in (16, 128):
            text, ids = text_of(tokens), encoder()
            ids_ms = await median_async_ms(functools.partial(ids.encode, [text], FOREVER_S), times)
            text_ms = await text_in(address, text, times)
            print(f"  Triton, {tokens:3} tokens, one caller: ids in {ids_ms:.1f} ms, text in {text_ms:.1f} ms")
            await ids.close()
    await service("Triton", encoder(), seconds)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=EncoderDevice, choices=list(EncoderDevice), default=EncoderDevice.CPU)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each rate")
    parser.add_argument("--times", type=int, default=20, help="for each median")
    parser.add_argument("--triton", action="store_true")
    parser.add_argument("--triton-address")
    given = parser.parse_args()
    cutting()
    if given.triton or given.triton_address:
        with triton_at(given.triton_address) as address:
            await on_triton(address, given.triton_address is None, given.seconds, given.times)
        return
    for threads in given.threads:
        passes(given.device, threads, given.times)
        local = Settings(device=given.device, threads=threads)
        await service("local", LocalEncoder(local, EncoderMetrics(CollectorRegistry()), Clock()), given.seconds)


if __name__ == "__main__":
    asyncio.run(main())
