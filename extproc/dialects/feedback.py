"""`POST /v1/feedback`: what a user thought of an answer. Ours; no other API has it.

    {"id": "chatcmpl-…", "thumbs": "up" | "down"}      or      {"id": "chatcmpl-…", "score": 0.0 … 1.0}

Must not know: what is done about it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from extproc.dialects.interface import InvalidRequest
from extproc.dialects.openai_wire import encode_json
from extproc.rejection import invalid_request

_GOOD_FROM = 0.5
_PREFIXES = ("chatcmpl-", "cmpl-", "msg_")


class _Body(Struct, forbid_unknown_fields=True):
    id: Annotated[str, Meta(min_length=1, max_length=200)]
    thumbs: Literal["up", "down"] | None = None
    score: Annotated[float, Meta(ge=0, le=1)] | None = None


class Feedback(Struct, frozen=True):
    """`response`: the request id within the answer's id, without what its API puts before it."""

    response: str
    score: float

    @property
    def good(self) -> bool:
        return self.score >= _GOOD_FROM


_decoder = msgspec.json.Decoder(_Body)


def parse(body: bytes) -> Feedback:
    """Raises InvalidRequest."""
    try:
        said = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(invalid_request(f"Invalid feedback: {error}")) from error
    if (said.thumbs is None) == (said.score is None):
        raise InvalidRequest(invalid_request("Feedback has either 'thumbs' or 'score'.", "score"))
    response = said.id
    for prefix in _PREFIXES:
        response = response.removeprefix(prefix)
    score = float(said.thumbs == "up") if said.score is None else said.score
    return Feedback(response, score)


def taken(feedback: Feedback) -> bytes:
    """The answer to it. The same whether or not such a response is known: ids of others must not be found out."""
    return encode_json({"object": "feedback", "id": feedback.response, "score": feedback.score})
