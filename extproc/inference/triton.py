"""The encoder on a Triton server: token ids go there, tensors come back, and Triton batches what arrives together.

Ids rather than text: the gateway needs the tokens anyway, to know where in the text an entity lies, and the model on
Triton is then the graph itself, which any backend that runs ONNX can serve. Texts are padded to a few widths, because
Triton batches requests of equal shape only.

What Triton can't do is told as EncoderError. After several calls in a row without an answer, calls fail at once for a
moment, so that not every request waits out its own deadline.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from extproc.clock import Clock
from extproc.config.encoder import Encoder as Settings
from extproc.inference import minilm
from extproc.inference.calls import call
from extproc.inference.failure import EncoderError, Reason
from extproc.inference.interface import Encoding
from extproc.inference.outputs import ENTITY_LABELS, Array, Labels, Output, encodings
from extproc.inference.padding import padded, width_of
from extproc.inference.tokens import Tokenizer, Tokens
from extproc.inference.windows import windows
from extproc.telemetry.encoder_metrics import EncoderMetrics

_TROUBLES = 5
"""After so many calls in a row without an answer, Triton is left alone for a moment."""
_PAUSE_S = 1.0
_UNAVAILABLE, _TOO_LATE = "StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED"
# How Triton words it when a model's queue refuses a request; both have the status UNAVAILABLE.
_QUEUE_FULL, _QUEUED_TOO_LONG = "Exceeds maximum queue size", "Request timeout expired"
# Try again soon after Triton has come back; left to itself gRPC waits up to two minutes.
_CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
_log = logging.getLogger(__name__)

Numbered = tuple[int, Tokens]


class TritonEncoder:
    """Connects when first used; the tokenizer is loaded at once, on a thread. Made on a running event loop."""

    def __init__(self, settings: Settings, metrics: EncoderMetrics, clock: Clock) -> None:
        self._settings = settings
        self._metrics = metrics
        self._now_s = clock.monotonic
        self._client = triton.InferenceServerClient(str(settings.triton.address), channel_args=_CHANNEL)
        folder = settings.model_dir or minilm.default_folder()
        self._preparing = asyncio.ensure_future(
            asyncio.to_thread(_Preparation, folder, settings.triton.max_batch_texts)
        )
        self._preparing.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, asked or not
        self._outputs: Sequence[Output] = ()  # those of the model there; none while that is not known
        self._waiting = 0
        self._troubles = 0
        self._paused_until_s = 0.0

    async def ready(self) -> None:
        """Raises EncoderError without a tokenizer. Triton itself is not asked: it may come and go."""
        await self._prepared()
        self._metrics.provider("triton")
        _log.info("encoder on Triton", extra={"address": str(self._settings.triton.address)})

    def windows(self, text: str) -> Sequence[tuple[int, int]]:
        return windows(text)

    async def encode(self, texts: Sequence[str], deadline_s: float) -> Sequence[Encoding]:
        if not texts:
            return ()
        due_s = self._now_s() + deadline_s
        async with call(self._metrics, self._now_s, deadline_s):
            self._admit(len(texts))
            try:
                return await self._encode(texts, due_s)
            finally:
                self._waiting -= len(texts)
                self._metrics.waiting(-len(texts))

    async def close(self) -> None:
        self._preparing.cancel()
        await self._client.close()

    def _admit(self, texts: int) -> None:
        if self._now_s() < self._paused_until_s:
            raise EncoderError(Reason.UNAVAILABLE, "Triton has not answered lately")
        if self._waiting + texts > self._settings.max_waiting:
            raise EncoderError(Reason.OVERLOADED, f"{self._waiting} texts wait already")
        self._waiting += texts
        self._metrics.waiting(texts)

    async def _prepared(self) -> _Preparation:
        try:
            return await asyncio.shield(self._preparing)
        except (OSError, ValueError) as error:
            raise EncoderError(Reason.UNAVAILABLE, str(error)) from error

    async def _encode(self, texts: Sequence[str], due_s: float) -> Sequence[Encoding]:
        prepared = await self._prepared()
        batches = await asyncio.to_thread(prepared.batches, texts)
        if not self._outputs:
            self._outputs = await self._outputs_there(due_s)
        answers = await asyncio.gather(*(self._infer(batch, due_s) for batch in batches))
        found: dict[int, Encoding] = {}
        for batch, arrays in zip(batches, answers, strict=True):
            indexes, tokens = zip(*batch, strict=True)
            found.update(zip(indexes, encodings(arrays, tokens, prepared.labels), strict=True))
        return [found[index] for index in range(len(texts))]

    async def _outputs_there(self, due_s: float) -> Sequence[Output]:
        """Which outputs the model has; asking for one that it has not is an error."""
        name = self._settings.triton.model
        try:
            metadata = await self._client.get_model_metadata(name, client_timeout=self._left_s(due_s))
        except InferenceServerException as error:
            raise self._failure(error) from None
        there = {output.name for output in metadata.outputs}
        if Output.EMBEDDING not in there:
            raise EncoderError(Reason.UNAVAILABLE, f"the model {name} on Triton has no output {Output.EMBEDDING}")
        return [output for output in Output if output in there]

    async def _infer(self, batch: Sequence[Numbered], due_s: float) -> Mapping[Output, Array]:
        tokens = [one for _, one in batch]
        inputs = []
        for name, value in padded(tokens, width_of(max(len(one.ids) for one in tokens))).items():
            tensor = triton.InferInput(name, value.shape, "INT64")
            tensor.set_data_from_numpy(value)
            inputs.append(tensor)
        wanted = [triton.InferRequestedOutput(output) for output in self._outputs]
        began_s = self._now_s()
        try:
            answer = await self._client.infer(
                self._settings.triton.model,
                inputs,
                outputs=wanted,
                client_timeout=self._left_s(due_s),
            )
        except InferenceServerException as error:
            raise self._failure(error) from None
        self._troubles = 0
        self._metrics.ran(len(batch), self._now_s() - began_s)
        return {output: answer.as_numpy(output) for output in self._outputs}

    def _left_s(self, due_s: float) -> float:
        return max(due_s - self._now_s(), 1e-3)  # gRPC takes none that is not positive

    def _failure(self, error: InferenceServerException) -> EncoderError:
        status, message = error.status(), error.message()
        if _QUEUE_FULL in message:
            return EncoderError(Reason.OVERLOADED, "Triton's queue is full")
        if _QUEUED_TOO_LONG in message:
            return EncoderError(Reason.DEADLINE, "it waited too long in Triton's queue")
        self._outputs = ()  # the model may be another when it is back
        if status not in (_UNAVAILABLE, _TOO_LATE):
            _log.error("Triton could not run the encoder", extra={"status": status, "error": message})
            return EncoderError(Reason.FAILED, "Triton could not run the model")
        self._troubles += 1
        if self._troubles >= _TROUBLES:
            self._paused_until_s = self._now_s() + _PAUSE_S
        late = status == _TOO_LATE
        return EncoderError(Reason.DEADLINE if late else Reason.UNAVAILABLE, "Triton does not answer")


class _Preparation:
    """What is done here before Triton is asked, on a thread. Raises OSError or ValueError for files that are wrong."""

    def __init__(self, folder: Path, max_batch_texts: int) -> None:
        self._tokenizer = Tokenizer(folder / "tokenizer.json")
        self._max_batch_texts = max_batch_texts
        metadata = folder / minilm.METADATA_FILE
        names = json.loads(metadata.read_bytes()).get(ENTITY_LABELS) if metadata.is_file() else None
        self.labels = Labels(json.loads(names)) if names is not None else None

    def batches(self, texts: Sequence[str]) -> Sequence[Sequence[Numbered]]:
        """The texts with their numbers, those of one width together."""
        by_width: dict[int, list[Numbered]] = {}
        for index, tokens in enumerate(self._tokenizer.tokenize(texts)):
            by_width.setdefault(width_of(len(tokens.ids)), []).append((index, tokens))
        size = self._max_batch_texts
        return [alike[first : first + size] for alike in by_width.values() for first in range(0, len(alike), size)]
