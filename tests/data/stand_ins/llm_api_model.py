"""In place of the model.py that NVIDIA ships for TensorRT-LLM's LLM API, with an engine that repeats words.

What it keeps to is triton_backend/all_models/llmapi: `triton_config` says whether it streams, each response of a
stream is the whole text so far, the prompt comes first unless it is excluded, an adapter is id, name and path.
"""

import os
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
ENDLESS = set()
"""Those that nobody has stopped yet."""


class TritonPythonModel:
    @classmethod
    def auto_complete_config(cls, config):
        with open(os.path.join(pb_utils.get_model_dir(), "model.yaml")) as file:
            decoupled = "\ntriton_config:\n  max_batch_size: 0\n  decoupled: true\n" in file.read()
        config.set_model_transaction_policy({"decoupled": decoupled})
        config.set_max_batch_size(0)
        return config

    def initialize(self, args):
        pass

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

        prompt, stream = value("text_input").decode(), bool(value("streaming", False))
        adapter = [value(f"lora_{part}") for part in ("id", "name", "path")]
        if None in adapter and any(part is not None for part in adapter):
            raise ValueError("lora_id, lora_name and lora_path go together")
        who = "base" if adapter[0] is None else f"{adapter[0]}:{adapter[1].decode()}:{adapter[2].decode()}"
        words = [f"{who} ", *(f"{word} " for word in prompt.split())]
        stops = pb_utils.get_input_tensor_by_name(request, "sampling_param_stop")
        stops = [] if stops is None else [stop.decode() for stop in stops.as_numpy().reshape(-1)]
        stopped = next((index for index, word in enumerate(words) if word.strip() in stops), len(words))
        cut = words[:stopped][: value("sampling_param_max_tokens", 32)]
        finish = "stop" if len(cut) == stopped else "length"
        if "[[endless]]" in prompt:
            endless(sender)
            return
        if "[[endless?]]" in prompt:
            cut = [f"{ENDLESS}"]
        so_far = "" if value("sampling_param_exclude_input_from_output", False) else prompt
        for index, word in enumerate(cut):
            if index == 2 and "[[break]]" in prompt:
                raise RuntimeError("the engine is broken")
            so_far += word
            last = index == len(cut) - 1
            if stream or last:
                reason = text("finish_reason", finish if last else str(None))
                wanted = [reason] if value("return_finish_reason", False) else []
                response = pb_utils.InferenceResponse([text("text_output", so_far), *wanted])
                sender.send(response, flags=FINAL if last else 0)


def endless(sender):
    ENDLESS.add(1)
    so_far = ""
    while not sender.is_cancelled():
        so_far += "on "
        sender.send(pb_utils.InferenceResponse([text("text_output", so_far), text("finish_reason", "None")]))
        time.sleep(0.02)
    ENDLESS.clear()
    sender.send(flags=FINAL)


def text(name, value):
    return pb_utils.Tensor(name, np.array([value.encode()], dtype=np.object_))
