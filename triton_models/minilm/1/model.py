"""`minilm` for Triton's Python backend: every text of every request of a batch in one padded ONNX run."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from tokenizers import Encoding, Tokenizer


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        settings = {name: value["string_value"] for name, value in parameters.items()}
        folder = Path(settings["model_dir"] or os.environ["EXTPROC_MINILM_DIR"])
        self._max_tokens = int(settings["max_tokens"])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(settings["intra_op_threads"])
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        encoded = [self._encode(request) for request in requests]
        embeddings = self._embed([one for texts in encoded if not isinstance(texts, str) for one in texts])
        responses, start = [], 0
        for texts in encoded:
            if isinstance(texts, str):
                error = pb_utils.TritonError(texts, pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            counts = np.array([[len(one)] for one in texts], dtype=np.int32)
            rows = np.ascontiguousarray(embeddings[start : start + len(texts)])
            start += len(texts)
            tensors = [pb_utils.Tensor("EMBEDDING", rows), pb_utils.Tensor("NUM_TOKENS", counts)]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses

    def _encode(self, request: Any) -> list[Encoding] | str:
        """The request's texts as tokens, or what is wrong with one of them."""
        values = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().reshape(-1)
        try:
            encodings = self._tokenizer.encode_batch([value.decode("utf-8") for value in values])
        except UnicodeDecodeError as error:
            return f"TEXT is not UTF-8: {error}"
        longest = max((len(encoding) for encoding in encodings), default=0)
        if longest > self._max_tokens:
            return f"TEXT has {longest} tokens, the limit is {self._max_tokens}"
        return encodings

    def _embed(self, texts: list[Encoding]) -> np.ndarray:
        width = max((len(text) for text in texts), default=0)
        ids = np.zeros((len(texts), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text.ids
            mask[row, : len(text)] = 1
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        return self._session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]
