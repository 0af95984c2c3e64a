"""KServe's questions about a model: `GET /v2/models/{m}[/versions/{v}]` and the same with `/ready`.

They go to the model's pool, because only its servers know the tensors' names and shapes; the public name is put back
into the answer. For whom inference is allowed, they are. Triton's further questions (`config`, `stats`) tell how it is
run, and what changes it (`repository`, `trace`, shared memory) is its operator's: none of these is served.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, ClassVar
from urllib.parse import unquote

import msgspec

from extproc.dialects.answer import AnswerEvent, Done, Opaque
from extproc.dialects.interface import (
    AnswerEncoder,
    AnswerIdentity,
    InferenceRequest,
    RequestHead,
    TextSegment,
    TokenTotals,
    Unread,
)
from extproc.dialects.kserve_api import InferEncoder, kserve_error
from extproc.dialects.openai_validation import refuse
from extproc.dialects.openai_wire import encode_json
from extproc.operation import Operation
from extproc.rejection import Rejection

_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]{1,18}))?(/ready)?")
_objects = msgspec.json.Decoder(dict[str, Any])


class Question(StrEnum):
    """The values end the path."""

    METADATA = ""
    READY = "/ready"


class ModelQuery(msgspec.Struct):
    """One question. Has no texts, and generates nothing."""

    model: str
    version: str | None
    question: Question
    operation: Operation = Operation.INFER
    stream: bool = False
    include_usage: bool = False
    choices: int = 1
    output_limit_tokens: int | None = 0

    def texts(self) -> Sequence[TextSegment]:
        return ()

    def labels(self) -> Sequence[TextSegment]:
        return ()

    def unread(self) -> frozenset[Unread]:
        return frozenset()

    def replace_texts(self, changed: Sequence[TextSegment]) -> None:
        assert not changed, "there are no texts"

    def essence(self) -> None:
        """Its answer is not read."""


def parse_path(path: str) -> ModelQuery | None:
    """None: it is another path."""
    match = _PATH.fullmatch(path)
    return None if match is None else ModelQuery(unquote(match[1]), match[2], Question(match[3] or ""))


def public_metadata(body: bytes, name: str) -> Sequence[AnswerEvent]:
    """A server's metadata of a model, with the name that clients know it by. Raises ValueError."""
    return [Opaque(encode_json(_objects.decode(body) | {"name": name})), Done()]


class KserveQueryApi:
    """See the module."""

    operation: ClassVar[str] = "models"

    def parse(self, head: RequestHead, body: bytes) -> InferenceRequest:
        """Raises InvalidRequest."""
        query = parse_path(head.path.partition("?")[0].removesuffix("/"))
        assert query is not None, "resolve() comes first"
        if body:
            refuse("A question about a model has no body.")
        return query

    def encoder(self, request: InferenceRequest, identity: AnswerIdentity, totals: TokenTotals) -> AnswerEncoder:
        return InferEncoder()

    def error(self, rejection: Rejection) -> bytes:
        """Triton's shape."""
        return kserve_error(rejection)


QUERY = KserveQueryApi()
