"""The `cascades` section: a small model that is tried first, and when its answer is not good enough.

Must not know: how an answer is judged, or who asks the other model.
"""

import enum
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from extproc.config.section import ModelName, Section

_Phrase = Annotated[str, pydantic.StringConstraints(min_length=3, max_length=200)]
_Chars = Annotated[int, pydantic.Field(ge=1, le=10_000_000)]

REFUSALS = (
    "i can't help with",
    "i cannot help with",
    "i can't assist with",
    "i cannot assist with",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "i don't know",
    "i do not know",
    "as an ai",
)
"""How models begin when they decline or give up, in English."""


class JsonAnswers(enum.StrEnum):
    """Which answers have to be JSON."""

    ASKED = "asked"
    ALWAYS = "always"
    NEVER = "never"


class LargeFails(enum.StrEnum):
    """What a client gets when the small model's answer was not good enough, and nobody else gave one."""

    ANSWER = "answer"
    ERROR = "error"


class Cascade(Section):
    """A small model that is tried first. The model that was asked for answers when the small one's answer fails one of
    these checks."""

    first: ModelName
    """The key of `models` that is tried first, in its own pool."""

    min_logprob: Annotated[float, pydantic.Field(ge=-100, le=0)] | None = None
    """Least mean log-probability of the answer's tokens (natural logarithm; -0.5 is a mean probability of about 0.6).
    Without it nobody asks how confident the model was. The pool's dialect has to be `openai` or `triton-generate`."""

    min_chars: Annotated[int, pydantic.Field(ge=0)] = 1
    """A shorter text is not good enough, unless the model calls a tool."""

    max_chars: _Chars | None = None
    """Nor is a longer one."""

    refusals: Annotated[tuple[_Phrase, ...], pydantic.Field(max_length=100)] = REFUSALS
    """Nor one that has one of these phrases in its first 200 characters, in whatever case; none: nobody looks."""

    json_answers: JsonAnswers = JsonAnswers.ASKED
    """`asked`: where the request's `response_format` asks for JSON the answer has to be some, and fit the schema given
    there. `always`: every answer; `never`: nobody looks."""

    json_schema: Mapping[str, Any] | None = None
    """A JSON schema (draft 2020-12) that every answer has to fit, whatever the request asks for."""

    hold_tokens: Annotated[int, pydantic.Field(ge=1, le=100_000)] = 32
    """A stream is held back until so many tokens were judged; what comes after that is not judged any more. Where JSON
    is wanted it is held back until its end."""

    on_large_failure: LargeFails = LargeFails.ANSWER
    """When the model that was asked for fails: `answer` gives the client the small one's answer, if it is whole or goes
    on, `error` never does."""

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> "Cascade":
        if self.max_chars is not None and self.max_chars < self.min_chars:
            raise ValueError("max_chars is less than min_chars")
        if self.json_schema is not None and self.json_answers is JsonAnswers.NEVER:
            raise ValueError("json_schema is of no use with json_answers: never")
        return self
