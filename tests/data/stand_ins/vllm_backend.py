"""In place of Triton's vLLM backend: its schema and its rules for model.json and LoRA, and an engine that repeats words.

What it keeps to is vllm_backend's src/model.py: the prompt in front of an answer that is not streamed, increments, the
finish reason "None" until the end, GPU_DEVICE_IDS, adapters by `lora_name`.
"""

import json
import os
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
TWO_AT_ONCE = threading.Barrier(2)
ENDLESS = set()
"""Those that nobody has stopped yet."""


class TritonPythonModel:
    @classmethod
    def auto_complete_config(cls, config):
        flags = ("return_cumulative_logprob", "return_logprobs")
        for name in flags:
            config.add_input({"name": name, "data_type": "TYPE_BOOL", "dims": [1], "optional": True})
        config.add_output({"name": "logprobs", "data_type": "TYPE_STRING", "dims": [-1]})
        config.set_model_transaction_policy({"decoupled": True})
        config.set_max_batch_size(0)
        return config

    def initialize(self, args):
        with open(os.path.join(pb_utils.get_model_dir(), "model.json")) as file:
            self.arguments = json.load(file)
        world = self.arguments["tensor_parallel_size"] * self.arguments["pipeline_parallel_size"]
        if args["model_instance_kind"] != "MODEL":
            raise ValueError("several GPUs need KIND_MODEL")
        parameters = json.loads(args["model_config"])["parameters"]
        devices = parameters.get("GPU_DEVICE_IDS", {}).get("string_value", "")
        if devices and len(devices.split(",")) != world:
            raise ValueError("GPU_DEVICE_IDS and parallelism differ")
        self.loras = {}
        if self.arguments.get("enable_lora"):
            with open(os.path.join(pb_utils.get_model_dir(), "multi_lora.json")) as file:
                self.loras = json.load(file)

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.answer, args=(request,)).start()

    def answer(self, request):
        sender = request.get_response_sender()
        try:
            self.generate(request, sender)
        except Exception as error:
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))), flags=FINAL)

    def generate(self, request, sender):
        def value(name, otherwise=None):
            tensor = pb_utils.get_input_tensor_by_name(request, name)
            return otherwise if tensor is None else tensor.as_numpy().reshape(-1)[0]

        prompt, stream = value("text_input").decode(), bool(value("stream", False))
        sampling = json.loads(value("sampling_parameters", b"{}"))
        lora = sampling.pop("lora_name", None)
        if lora is not None and lora not in self.loras:
            raise ValueError(f"LoRA {lora} is not supported")
        words = [f"{lora or 'base'} ", *(f"{word} " for word in prompt.split())]
        cut = words[: sampling.get("max_tokens", 16)]
        if "[[together]]" in prompt:
            TWO_AT_ONCE.wait(10)
        if "[[endless]]" in prompt:
            endless(sender)
            return
        if "[[endless?]]" in prompt:
            cut = [f"{ENDLESS}"]
        if not stream and not value("exclude_input_in_output", False):
            cut[0] = prompt + cut[0]
        finish = "stop" if len(cut) == len(words) else "length"
        pieces = [[word] for word in cut] if stream else [cut]
        for index, piece in enumerate(pieces):
            if index == 2 and "[[break]]" in prompt:
                raise RuntimeError("the engine is broken")
            last = index == len(pieces) - 1
            outputs = [text("text_output", "".join(piece))]
            if value("return_finish_reason", False):
                outputs.append(text("finish_reason", finish if last else "None"))
            if value("return_num_input_tokens", False):
                outputs.append(count("num_input_tokens", len(prompt.split())))
            if value("return_num_output_tokens", False):
                outputs.append(count("num_output_tokens", len(piece)))
            sender.send(pb_utils.InferenceResponse(outputs), flags=FINAL if last else 0)


def endless(sender):
    ENDLESS.add(1)
    while not sender.is_cancelled():
        sender.send(pb_utils.InferenceResponse([text("text_output", "on "), text("finish_reason", "None")]))
        time.sleep(0.02)
    ENDLESS.clear()
    sender.send(flags=FINAL)


def text(name, value):
    return pb_utils.Tensor(name, np.array([value.encode()], dtype=np.object_))


def count(name, value):
    return pb_utils.Tensor(name, np.array([value], dtype=np.uint32))
