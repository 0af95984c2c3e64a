"""OpenAI's client APIs: chat completions, completions and embeddings, in; their answers and errors, out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from extproc.dialects.interface import (
    AnswerEncoder,
    AnswerIdentity,
    InferenceRequest,
    RequestHead,
    TokenTotals,
)
from extproc.dialects.openai_requests import ChatRequest, CompletionRequest, EmbeddingsRequest, OpenAiRequest
from extproc.dialects.openai_stream import OpenAiStreamEncoder
from extproc.dialects.openai_validation import decode_object
from extproc.dialects.openai_whole import OpenAiWholeEncoder
from extproc.dialects.openai_wire import error_body
from extproc.operation import Operation
from extproc.rejection import Rejection

_PREFIXES = {Operation.CHAT: "chatcmpl-", Operation.COMPLETIONS: "cmpl-", Operation.EMBEDDINGS: ""}


class OpenAiApi:
    """One of the three; they differ in their request class and in how their answers' ids begin."""

    def __init__(self, operation: Operation, request_class: Callable[[dict[str, Any]], OpenAiRequest]) -> None:
        self.operation = operation
        self._request_class = request_class

    def parse(self, head: RequestHead, body: bytes) -> InferenceRequest:
        """Raises InvalidRequest."""
        return self._request_class(decode_object(body))

    def encoder(self, request: InferenceRequest, identity: AnswerIdentity, totals: TokenTotals) -> AnswerEncoder:
        assert isinstance(request, OpenAiRequest), "a request of this API"
        identity = replace(identity, id=_PREFIXES[self.operation] + identity.id)
        if request.stream:
            return OpenAiStreamEncoder(self.operation, identity, totals, include_usage=request.include_usage)
        base64_vectors = request.fields.get("encoding_format") == "base64"
        return OpenAiWholeEncoder(self.operation, identity, totals, base64_vectors=base64_vectors)

    def error(self, rejection: Rejection) -> bytes:
        return error_body(rejection)


CHAT = OpenAiApi(Operation.CHAT, ChatRequest)
COMPLETIONS = OpenAiApi(Operation.COMPLETIONS, CompletionRequest)
EMBEDDINGS = OpenAiApi(Operation.EMBEDDINGS, EmbeddingsRequest)
