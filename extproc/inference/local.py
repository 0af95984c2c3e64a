"""The encoder in this process: tokenizer, graph and micro-batcher on a thread of their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from extproc.clock import Clock
from extproc.config.encoder import Encoder as Settings
from extproc.config.encoder import EncoderDevice
from extproc.inference import minilm
from extproc.inference.batcher import Batcher
from extproc.inference.interface import Encoding
from extproc.inference.outputs import encodings
from extproc.inference.session import Session
from extproc.inference.tokens import Tokenizer, Tokens
from extproc.inference.windows import windows
from extproc.telemetry.encoder_metrics import EncoderMetrics

# A longer batch makes each of its texts wait for all; on a CPU that buys next to nothing, on a GPU it is the point
# (docs/encoder.md).
_MAX_BATCH_TOKENS = {"cpu": 512, "cuda": 16384}
_log = logging.getLogger(__name__)


class LocalEngine:
    """The model in ONNX Runtime. Raises EncoderError or ValueError when `folder` holds none that works."""

    def __init__(self, folder: Path, device: EncoderDevice, threads: int, max_batch_tokens: int | None = None) -> None:
        self._tokenizer = Tokenizer(folder / "tokenizer.json")
        self._session = Session(folder / "model.onnx", device, threads)
        self.provider = self._session.provider
        self.max_batch_tokens = max_batch_tokens or _MAX_BATCH_TOKENS[self.provider]
        outputs = ", ".join(self._session.outputs)
        _log.info("encoder loaded", extra={"provider": self.provider, "threads": threads, "outputs": outputs})

    def tokenize(self, texts: Sequence[str]) -> Sequence[Tokens]:
        return self._tokenizer.tokenize(texts)

    def run(self, batch: Sequence[Tokens]) -> Sequence[Encoding]:
        return encodings(self._session.run(batch), batch, self._session.labels)


class LocalEncoder:
    """Loading begins at once, beside whatever else the process does to start. Made on a running event loop."""

    def __init__(self, settings: Settings, metrics: EncoderMetrics, clock: Clock) -> None:
        self._settings = settings
        self._metrics = metrics
        self._batcher = Batcher(self._load, settings.max_waiting, metrics, clock)

    def _load(self) -> LocalEngine:
        settings = self._settings
        folder = settings.model_dir or minilm.default_folder()
        engine = LocalEngine(folder, settings.device, settings.threads, settings.max_batch_tokens)
        self._metrics.provider(engine.provider)
        return engine

    async def ready(self) -> None:
        """Raises EncoderError when it could not be loaded."""
        await self._batcher.ready()

    def windows(self, text: str) -> Sequence[tuple[int, int]]:
        return windows(text)

    async def encode(self, texts: Sequence[str], deadline_s: float) -> Sequence[Encoding]:
        return await self._batcher.encode(texts, deadline_s)

    async def close(self) -> None:
        await self._batcher.close()
