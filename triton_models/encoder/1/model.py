"""`encoder` for Triton's Python backend: token ids through the graph, only those of its outputs that are asked for."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

# What a graph may have beside `embedding`, and the shape of one row of it.
_HEADS: dict[str, list[int]] = {"injection": [], "complexity": [], "entity_logits": [-1, -1]}


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Say which heads the graph really has, so that clients can see it in the model's metadata."""
        session = _open(config.as_dict()["parameters"])
        for output in session.get_outputs():
            if output.name in _HEADS:
                dims = _HEADS[output.name] or [1]
                config.add_output({"name": output.name, "data_type": "TYPE_FP32", "dims": dims})
        return config

    def initialize(self, args: dict[str, str]) -> None:
        self._session = _open(json.loads(args["model_config"])["parameters"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Triton batches requests of one width only."""
        asked = sorted({name for request in requests for name in request.requested_output_names()})
        inputs = {
            name: np.concatenate([pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests])
            for name in ("input_ids", "attention_mask")
        }
        outputs = dict(zip(asked, self._session.run(asked, inputs), strict=True))
        responses, start = [], 0
        for request in requests:
            rows = slice(start, start + len(pb_utils.get_input_tensor_by_name(request, "input_ids").as_numpy()))
            start = rows.stop
            tensors = [pb_utils.Tensor(name, _shaped(outputs[name][rows])) for name in request.requested_output_names()]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses


def _shaped(rows: np.ndarray) -> np.ndarray:
    """A score per row is [rows, 1] here: a model that batches has no outputs without dimensions."""
    return np.ascontiguousarray(rows.reshape(len(rows), 1) if rows.ndim == 1 else rows)


def _open(parameters: dict[str, Any]) -> Any:
    settings = {name: value["string_value"] for name, value in parameters.items()}
    folder = Path(settings["model_dir"] or os.environ["EXTPROC_MINILM_DIR"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(settings["intra_op_threads"])
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
