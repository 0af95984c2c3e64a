"""The `kserve` dialect: models behind `/v2/models/M/infer`. Embeddings are translated; inference, and what is asked
about a model, pass through.

An embedding model takes TEXT (BYTES, one per input) and gives EMBEDDING (FP32, one row per input), and
NUM_TOKENS (INT32) if it counts them; the names are those of `triton_models/minilm`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from extproc.dialects.answer import AnswerEvent, Done, Embedding, Failed, Usage
from extproc.dialects.decoding import (
    ErrorDecoder,
    PassThroughDecoder,
    WholeAnswerDecoder,
    failed,
    is_error,
)
from extproc.dialects.interface import (
    AnswerDecoder,
    InferenceRequest,
    UpstreamCall,
    UpstreamModel,
)
from extproc.dialects.kserve_api import HEADER_LENGTH, InferRequest
from extproc.dialects.kserve_queries import ModelQuery, Question, public_metadata
from extproc.dialects.openai_pool import JSON_HEADERS
from extproc.dialects.openai_requests import EmbeddingsRequest, inputs_of
from extproc.dialects.openai_wire import encode_json
from extproc.dialects.upstream_errors import rejection_of, triton_rejection
from extproc.operation import Operation
from extproc.rejection import Rejection, invalid_request, model_version_not_found

_CARRIED = frozenset({"model", "input", "encoding_format", "user"})


class _Output(msgspec.Struct):
    name: str
    shape: list[int]
    data: list[Any] = []


class _Answer(msgspec.Struct):
    outputs: list[_Output] | None = None
    error: Any = None


_answers = msgspec.json.Decoder(_Answer)


class KservePool:
    """See the module."""

    operations = frozenset({Operation.EMBEDDINGS, Operation.INFER})

    def check(self, request: InferenceRequest) -> Rejection | None:
        if isinstance(request, InferRequest | ModelQuery):
            return None
        if not isinstance(request, EmbeddingsRequest):
            message = f"The model `{request.model}` does not serve {request.operation} requests."
            return invalid_request(message, "model")
        for name, value in request.fields.items():
            if value is not None and name not in _CARRIED:
                message = f"The parameter '{name}' is not supported with the model `{request.model}`."
                return invalid_request(message, name, "unsupported_parameter")
        if not all(isinstance(item, str) for item in inputs_of(request.fields["input"])):
            message = f"The model `{request.model}` takes texts, not token ids."
            return invalid_request(message, "input", "unsupported_value")
        return None

    def encode(self, request: InferenceRequest, model: UpstreamModel) -> UpstreamCall:
        base = f"/v2/models/{quote(model.name, safe='')}"
        if isinstance(request, InferRequest):
            return _pass_through(request, base)
        if isinstance(request, ModelQuery):
            return UpstreamCall(f"{base}{_version(request)}{request.question}", None)
        assert isinstance(request, EmbeddingsRequest), "check() comes first"
        texts = inputs_of(request.fields["input"])
        tensor = {"name": "TEXT", "shape": [len(texts), 1], "datatype": "BYTES", "data": texts}
        return UpstreamCall(f"{base}/infer", encode_json({"inputs": [tensor]}), JSON_HEADERS)

    def decoder(self, request: InferenceRequest, status: int, content_type: str) -> AnswerDecoder:
        if isinstance(request, InferRequest | ModelQuery):
            return ErrorDecoder(status, _judge(request)) if is_error(status) else _answer_decoder(request)
        if is_error(status):
            return ErrorDecoder(status, _embedding_rejection)
        assert isinstance(request, EmbeddingsRequest), "check() comes first"
        count = len(inputs_of(request.fields["input"]))
        return WholeAnswerDecoder(lambda body: _read_embeddings(body, count))


def _pass_through(request: InferRequest, base: str) -> UpstreamCall:
    path = f"{base}{_version(request)}/infer"
    body, header_bytes = request.body()
    if header_bytes is None:
        return UpstreamCall(path, body, remove_headers=(HEADER_LENGTH,))
    return UpstreamCall(path, body, ((HEADER_LENGTH, str(header_bytes)),))


def _version(request: InferRequest | ModelQuery) -> str:
    return "" if request.version is None else f"/versions/{request.version}"


def _answer_decoder(request: InferRequest | ModelQuery) -> AnswerDecoder:
    if isinstance(request, ModelQuery) and request.question is Question.METADATA:
        return WholeAnswerDecoder(lambda body: public_metadata(body, request.model))
    return PassThroughDecoder()


def _judge(request: InferRequest | ModelQuery) -> Callable[[int, Any], Rejection]:
    """Triton's own verdict, save one: a version that the client asked for and that isn't there is not its failure."""

    def judge(status: int, content: Any) -> Rejection:
        rejection = rejection_of(status, content)
        if request.version is not None and f"version {request.version} is not found" in rejection.message:
            return model_version_not_found(request.model, request.version)
        return rejection

    return judge


def _embedding_rejection(status: int, content: Any) -> Rejection:
    """Triton's 400 about a batch or a text that is too long is the client's to mend; any other is not."""
    message = content.get("error") if isinstance(content, dict) else None
    if status == 400 and isinstance(message, str) and ("batch-size" in message or "the limit is" in message):
        rejection = rejection_of(status, content)
        return invalid_request(rejection.message, "input", reason=rejection.reason)
    return triton_rejection(status, content)


def _read_embeddings(body: bytes, count: int) -> Sequence[AnswerEvent]:
    answer = _answers.decode(body)
    if answer.error is not None:
        return [Failed(triton_rejection(500, {"error": answer.error}))]
    outputs = {output.name: output for output in answer.outputs or ()}
    vectors = outputs.get("EMBEDDING")
    if vectors is None or len(vectors.shape) != 2 or vectors.shape[0] != count:
        return [failed("The model server sent an answer without the embeddings asked for.")]
    width = vectors.shape[1]
    values = msgspec.convert(vectors.data, list[float])
    if width <= 0 or len(values) != count * width:
        return [failed("The model server sent embeddings that do not fit their shape.")]
    rows: list[AnswerEvent] = [Embedding(index, values[index * width : (index + 1) * width]) for index in range(count)]
    tokens = outputs.get("NUM_TOKENS")
    if tokens is not None:
        rows.append(Usage(sum(msgspec.convert(tokens.data, list[int])), 0))
    return [*rows, Done()]
