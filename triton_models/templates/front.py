"""A model in the schema of Triton's vLLM backend that another model of the same server answers for.

For two engines: TensorRT-LLM's LLM API, whose own schema is another (a field for each parameter, a stream that repeats
the whole text), and vLLM's backend when an adapter (LoRA) goes with everything that is asked of this model. Runs in
Triton's Python backend and needs nothing but NumPy. Its parameters are in config.pbtxt beside it.

The engine is asked over the server's own HTTP port. Triton's calls from model to model (BLS) lose an error in the
middle of a stream and then wait for ever (seen with 2.51), and can't be cancelled there; a closed connection can.
"""

import http.client
import json
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_SILENCE_S = 600
_EVENT = b"data: "
_TEXTS, _COUNTS = ("text_output", "finish_reason"), ("num_input_tokens", "num_output_tokens")
_UNFINISHED = "None"
_BROKEN_OFF = ("abort", "cancelled", "timeout")
# Of vLLM's SamplingParams what TensorRT-LLM has by the same name; anything else is refused, never dropped.
_TENSORRTLLM_PARAMETERS = frozenset(
    {"max_tokens", "temperature", "top_k", "top_p", "seed", "frequency_penalty", "presence_penalty", "stop"}
)


class BadRequest(ValueError):
    """What was asked for can't be asked of the engine."""


class EngineError(Exception):
    """The engine's own words for why there is no answer."""


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        given = json.loads(args["model_config"])["parameters"]
        parameters = {name: value["string_value"] for name, value in given.items()}
        self._engine = {"tensorrtllm": TensorRtLlm, "vllm": Vllm}[parameters["engine_backend"]](parameters)
        self._server = parameters["server"]
        self._path = f"/v2/models/{urllib.parse.quote(parameters['engine'])}/generate_stream"
        self._threads = ThreadPoolExecutor(int(parameters["max_requests"]))

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._threads.submit(self._answer, request)

    def finalize(self) -> None:
        self._threads.shutdown()

    def _answer(self, request: Any) -> None:
        sender = request.get_response_sender()
        try:
            self._relay(Question(request), sender)
        except BadRequest as error:
            _fail(sender, str(error), pb_utils.TritonError.INVALID_ARG)
        except EngineError as error:
            _fail(sender, str(error), pb_utils.TritonError.INTERNAL)
        except Exception as error:
            # A request without an end would hang its caller and keep the model from unloading.
            _fail(sender, f"the engine can't be asked: {error!r}", pb_utils.TritonError.UNAVAILABLE)

    def _relay(self, question: "Question", sender: Any) -> None:
        read = self._engine.reader(question)
        connection = http.client.HTTPConnection(self._server, timeout=_SILENCE_S)
        try:
            connection.request("POST", self._path, json.dumps(self._engine.body(question)))
            for event in _events(connection.getresponse()):
                if sender.is_cancelled():
                    raise EngineError("nobody listens any more")
                outputs, is_last = _sound(read(event), question)
                sender.send(pb_utils.InferenceResponse(_tensors(outputs)), flags=FINAL if is_last else 0)
                if is_last:
                    return
        finally:
            connection.close()
        raise EngineError("the engine's answer ended too early")


def _fail(sender: Any, message: str, code: int) -> None:
    sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code)), flags=FINAL)


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Raises EngineError. A model that is not there answers with JSON alone, whatever was asked."""
    if "event-stream" not in response.getheader("content-type", ""):
        raise EngineError(json.loads(response.read()).get("error", "an answer that is no stream"))
    for line in response:
        if line.startswith(_EVENT):
            event = json.loads(line.removeprefix(_EVENT))
            if "error" in event:
                raise EngineError(event["error"])
            yield event


def _sound(outputs: dict[str, Any], question: "Question") -> tuple[dict[str, Any], bool]:
    """As they are to be sent, and whether they are the last."""
    reason = outputs["finish_reason"]
    if reason in _BROKEN_OFF:
        raise EngineError(f"the engine broke off: {reason}")
    if not question.wants_finish_reason:
        del outputs["finish_reason"]
    return outputs, reason != _UNFINISHED or not question.stream


def _tensors(outputs: dict[str, Any]) -> list[Any]:
    texts = [(name, np.array([outputs[name].encode()], dtype=np.object_)) for name in _TEXTS if name in outputs]
    counts = [(name, np.array([outputs[name]], dtype=np.uint32)) for name in _COUNTS if name in outputs]
    return [pb_utils.Tensor(name, value) for name, value in texts + counts]


class Question:
    """What is asked, as Python values."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self.prompt = self._text("text_input")
        self.stream = self.flag("stream")
        self.wants_finish_reason = self.flag("return_finish_reason")
        # vLLM's backend puts the prompt in front of an answer that is not streamed, unless it is told not to.
        self.repeats_prompt = not (self.stream or self.flag("exclude_input_in_output"))
        sampling = self._text("sampling_parameters") or request.parameters()
        try:
            self.sampling: dict[str, Any] = json.loads(sampling or "{}")
        except ValueError as error:
            raise BadRequest("sampling_parameters is no JSON object") from error

    def flag(self, name: str) -> bool:
        return bool(self._value(name))

    def _value(self, name: str) -> Any:
        tensor = pb_utils.get_input_tensor_by_name(self._request, name)
        return None if tensor is None else tensor.as_numpy().reshape(-1)[0]

    def _text(self, name: str) -> str:
        value = self._value(name)
        return "" if value is None else value.decode("utf-8", errors="replace")


class Vllm:
    """The same schema: only the adapter is added."""

    def __init__(self, parameters: dict[str, str]) -> None:
        self._lora = {"lora_name": parameters["lora_name"]}

    def body(self, question: Question) -> dict[str, Any]:
        counts = [f"return_{name}" for name in _COUNTS]
        return {
            "text_input": question.prompt,
            "stream": question.stream,
            "exclude_input_in_output": not question.repeats_prompt,
            "sampling_parameters": json.dumps(question.sampling | self._lora),
            "return_finish_reason": True,
            **{name: True for name in counts if question.flag(name)},
        }

    def reader(self, question: Question) -> Any:
        return dict


class TensorRtLlm:
    """A field for each parameter. It counts no tokens."""

    def __init__(self, parameters: dict[str, str]) -> None:
        self._lora: dict[str, Any] = {}
        if "lora_name" in parameters:
            self._lora = {name: parameters[name] for name in ("lora_name", "lora_path")}
            self._lora["lora_id"] = int(parameters["lora_id"])

    def body(self, question: Question) -> dict[str, Any]:
        unknown = sorted(question.sampling.keys() - _TENSORRTLLM_PARAMETERS)
        if unknown:
            raise BadRequest(f"the engine takes no {unknown[0]}")
        return {
            "text_input": question.prompt,
            "streaming": question.stream,
            "sampling_param_exclude_input_from_output": True,
            "return_finish_reason": True,
            **{f"sampling_param_{name}": value for name, value in question.sampling.items() if value not in ([], "")},
            **self._lora,
        }

    def reader(self, question: Question) -> Any:
        """Makes increments of a text that comes whole, as far as it is, each time."""
        sent = ""

        def read(event: dict[str, Any]) -> dict[str, Any]:
            nonlocal sent
            text, seen = event["text_output"], sent
            sent = text
            increment = text[len(seen) :]
            first = question.prompt if question.repeats_prompt else ""
            return {"text_output": first + increment, "finish_reason": event["finish_reason"]}

        return read
