"""`demo_llm` for Triton's Python backend. Owns: tensors in, responses out, metrics; the rest is beside it.

`execute` only hands requests to one asyncio loop on its own thread, which runs every sequence.
Schema: that of Triton's vLLM backend (see docs/triton.md).
"""

import asyncio
import json
import os
import signal
import threading
import time
from typing import Any

import composer
import directives
import numpy as np
import sampling
import triton_python_backend_utils as pb_utils
from detokenizer import Detokenizer
from engine import Engine, Load, Pace, Sequence
from kv_cache import KvCache
from rs_bpe.bpe import openai

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_ORPHAN_CHECK_S = 0.5
_LOGPROB = -0.1  # of each token, unless the prompt asks for another


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        self._settings = {name: float(value["string_value"]) for name, value in parameters.items()}
        self._pace = Pace(
            ttft_ms=self._settings["ttft_ms"],
            ttft_us_per_uncached_token=self._settings["ttft_us_per_uncached_token"],
            tpot_ms=self._settings["tpot_ms"],
            jitter=self._settings["jitter"],
        )
        self._tokenizer = openai.cl100k_base()
        self._metrics = Metrics({"model": args["model_name"], "version": args["model_version"]})
        self._engine = Engine(
            KvCache(int(self._settings["kv_cache_blocks"])),
            int(self._settings["max_running_sequences"]),
            self._metrics.show,
        )
        serving = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(serving)), name="demo_llm")
        self._thread.start()
        serving.wait()
        threading.Thread(target=_end_with_server, args=(os.getppid(),), daemon=True).start()

    async def _serve(self, serving: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        watcher = self._loop.create_task(self._engine.watch_cancellations())
        serving.set()
        await self._ended.wait()
        watcher.cancel()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._loop.call_soon_threadsafe(self._begin, Request(request))

    def finalize(self) -> None:
        """Triton calls this only when no request is left."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def _begin(self, request: "Request") -> None:
        try:
            sequence, answer = self._plan(request)
        except sampling.BadParameter as error:
            request.fail(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:
            # A request without an answer would hang its caller and keep the model from unloading.
            request.fail(f"demo_llm failed: {error!r}", pb_utils.TritonError.INTERNAL)
        else:
            self._engine.submit(sequence, answer)

    def _plan(self, request: "Request") -> tuple[Sequence, "Answer"]:
        prompt = request.text("text_input")
        wishes = directives.parse(prompt)
        if wishes.error_before:
            raise RuntimeError("the prompt asked for an error before the first token")
        settings = sampling.parse(request.sampling_parameters(), int(self._settings["default_max_tokens"]))
        if request.stream and request.flag("exclude_input_in_output") is False:
            raise sampling.BadParameter("exclude_input_in_output must not be false when stream is true")
        composed = self._compose(prompt, settings, wishes)
        pace = self._pace
        if wishes.ttft_ms is not None:
            pace = Pace(wishes.ttft_ms, 0, pace.tpot_ms, 0)
        if wishes.tpot_ms is not None:
            pace = Pace(pace.ttft_ms, pace.ttft_us_per_uncached_token, wishes.tpot_ms, pace.jitter)
        sequence = Sequence(
            self._tokenizer.encode(prompt), composed.token_ids, pace, composer.generator(prompt, settings.seed)
        )
        if not self._engine.cache.could_ever_hold(sequence.total_tokens):
            raise sampling.BadParameter(f"{sequence.total_tokens} tokens do not fit the KV cache")
        detokenizer = Detokenizer(self._tokenizer.decode, settings.stop)
        return sequence, Answer(request, prompt, sequence, composed.finish_reason, detokenizer, wishes, self._metrics)

    def _compose(self, prompt: str, settings: sampling.Sampling, wishes: directives.Directives) -> composer.Answer:
        if wishes.echo is not None:
            return composer.repeat(self._tokenizer, wishes.echo, settings.max_tokens)
        length = settings.max_tokens if settings.ignore_eos else wishes.tokens
        composed = composer.compose(self._tokenizer, prompt, settings.seed, settings.max_tokens, length)
        return composer.Answer(composed.token_ids, "length") if settings.ignore_eos else composed


class Request:
    """One inference request's tensors as Python values, and its sender."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self.sender = request.get_response_sender()
        self.stream = bool(self.flag("stream"))

    def _value(self, name: str) -> Any:
        tensor = pb_utils.get_input_tensor_by_name(self._request, name)
        return None if tensor is None else tensor.as_numpy().reshape(-1)[0]

    def text(self, name: str) -> str:
        value: bytes | None = self._value(name)
        if value is None:
            # Triton counts inputs when some are optional; it does not look which of them are there.
            raise sampling.BadParameter(f"{name} is required")
        return value.decode("utf-8", errors="replace")

    def flag(self, name: str) -> bool | None:
        value = self._value(name)
        return None if value is None else bool(value)

    def sampling_parameters(self) -> str:
        """vLLM's rule: the tensor, or else the request's own parameters (unknown JSON keys of /generate)."""
        given = self._value("sampling_parameters")
        return self._request.parameters() if given is None else given.decode("utf-8", errors="replace")

    def fail(self, message: str, code: int) -> None:
        error = pb_utils.TritonError(message, code)
        self.sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)


class Answer:
    """Turns one sequence's tokens into responses: one per token when streaming, else one in all."""

    def __init__(
        self,
        request: Request,
        prompt: str,
        sequence: Sequence,
        natural_finish_reason: str,
        detokenizer: Detokenizer,
        wishes: directives.Directives,
        metrics: "Metrics",
    ) -> None:
        self._request = request
        self._sequence = sequence
        self._natural_finish_reason = natural_finish_reason
        self._detokenizer = detokenizer
        self._wishes = wishes
        self._metrics = metrics
        self._wants_finish_reason = bool(request.flag("return_finish_reason"))
        self._wants_input_count = bool(request.flag("return_num_input_tokens"))
        self._wants_output_count = bool(request.flag("return_num_output_tokens"))
        self._wants_logprob = bool(request.flag("return_cumulative_logprob"))
        self._logprob = 0.0
        excludes_input = request.flag("exclude_input_in_output")
        self._text = "" if request.stream or excludes_input else prompt
        self._unsent_tokens = 0
        self._simulation: list[Any] = []
        self._is_over = False

    def is_cancelled(self) -> bool:
        # Never ask after the final response: the server looks into what it has freed by then, and dies.
        return not self._is_over and bool(self._request.sender.is_cancelled())

    def started(self, cached_tokens: int, queue_depth: int) -> None:
        self._metrics.count(len(self._sequence.prompt_ids), cached_tokens)
        self._simulation = [_count("cached_tokens", cached_tokens), _count("queue_depth", queue_depth)]
        self._misbehave(tokens_sent=0)
        if not self._sequence.output_ids and not self._is_over:
            self._send(self._natural_finish_reason)

    def token(self, index: int, token_id: int) -> bool:
        if self._is_over:
            return False
        self._unsent_tokens += 1
        self._logprob += _LOGPROB if self._wishes.logprob is None else self._wishes.logprob
        self._text += self._detokenizer.feed(token_id)
        finish_reason = self._finish_reason(index)
        if finish_reason == self._natural_finish_reason and not self._detokenizer.stopped:
            self._text += self._detokenizer.flush()
        if self._request.stream or finish_reason:
            self._send(finish_reason)
        if not finish_reason:
            self._misbehave(tokens_sent=index + 1)
        return not self._is_over

    def done(self) -> None:
        if not self._is_over:  # cancelled: nobody listens, but Triton needs the request closed
            self._is_over = True
            self._request.sender.send(flags=FINAL)

    def _finish_reason(self, index: int) -> str | None:
        if self._detokenizer.stopped:
            return "stop"
        return self._natural_finish_reason if index + 1 == len(self._sequence.output_ids) else None

    def _misbehave(self, tokens_sent: int) -> None:
        if self._wishes.crash_after == tokens_sent:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._wishes.error_after == tokens_sent:
            self._is_over = True
            self._request.fail(
                f"the prompt asked for an error after {tokens_sent} tokens", pb_utils.TritonError.INTERNAL
            )

    def _send(self, finish_reason: str | None) -> None:
        tensors = [_text("text_output", self._text), *self._simulation]
        if self._wants_finish_reason:
            tensors.append(_text("finish_reason", str(finish_reason)))  # "None" until the end, as vLLM does
        if self._wants_input_count:
            tensors.append(_count("num_input_tokens", len(self._sequence.prompt_ids)))
        if self._wants_output_count:
            tensors.append(_count("num_output_tokens", self._unsent_tokens))
        if self._wants_logprob:
            tensors.append(pb_utils.Tensor("cumulative_logprob", np.array([self._logprob], dtype=np.float32)))
        self._text, self._unsent_tokens, self._simulation = "", 0, []
        self._is_over = finish_reason is not None
        self._request.sender.send(pb_utils.InferenceResponse(tensors), flags=FINAL if self._is_over else 0)


class Metrics:
    """Custom metrics on Triton's own /metrics page."""

    def __init__(self, labels: dict[str, str]) -> None:
        def metric(name: str, kind: Any, description: str) -> Any:
            family = pb_utils.MetricFamily(name=f"demo_llm_{name}", description=description, kind=kind)
            self._families.append(family)  # a metric dies with its family
            return family.Metric(labels=labels)

        counter, gauge = pb_utils.MetricFamily.COUNTER, pb_utils.MetricFamily.GAUGE
        self._families: list[Any] = []
        self._prompt_tokens = metric("prompt_tokens", counter, "Prompt tokens of started sequences")
        self._hit_tokens = metric("prefix_cache_hit_tokens", counter, "Prompt tokens found in the prefix cache")
        self._queue_depth = metric("queue_depth", gauge, "Sequences waiting for a place")
        self._running = metric("running", gauge, "Sequences in prefill or decode")
        self._utilization = metric("kv_cache_utilization", gauge, "Share of KV cache blocks in use, 0 to 1")

    def count(self, prompt_tokens: int, hit_tokens: int) -> None:
        self._prompt_tokens.increment(prompt_tokens)
        self._hit_tokens.increment(hit_tokens)

    def show(self, load: Load) -> None:
        self._queue_depth.set(load.queued)
        self._running.set(load.running)
        self._utilization.set(load.kv_cache_utilization)


def _end_with_server(server_pid: int) -> None:
    """A send to a server that died waits for ever, and the process with it: leave when orphaned."""
    while os.getppid() == server_pid:
        time.sleep(_ORPHAN_CHECK_S)
    os._exit(1)


def _text(name: str, value: str) -> Any:
    return pb_utils.Tensor(name, np.array([value.encode()], dtype=np.object_))


def _count(name: str, value: int) -> Any:
    return pb_utils.Tensor(name, np.array([value], dtype=np.uint32))
