"""Whether the answer of a cascade's small model is good enough: judged event by event, once.

The verdict depends on the events alone, not on how they came together. Pure; must not know: who asked, what becomes of
the answer, or how anything is translated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from extproc.config.cascades import Cascade, JsonAnswers
from extproc.dialects.answer import AnswerEvent, Delta, Done, Failed, Usage
from extproc.routing.json_answers import JsonShape

_REFUSAL_CHARS = 200
_MOST_HELD_CHARS = 4 << 20
"""A server that never ends its answer is not waited for."""

_LEAST_LOGPROB = -100.0
"""Servers write impossible as -9999: one such token shall not decide alone."""


class Reason(StrEnum):
    """Why the small model's answer was not good enough."""

    FAILED = "failed"
    REFUSED = "refused"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    NO_LOGPROBS = "no_logprobs"
    UNSURE = "unsure"
    NOT_JSON = "not_json"
    SCHEMA = "schema"


class Good(Struct, frozen=True):
    """Good enough."""


GOOD = Good()
Verdict = Good | Reason


class Checks(Struct, frozen=True):
    """What an answer has to be. `shape` None: any text. `hold_tokens` None: all of it is judged."""

    cascade: Cascade
    refusals: tuple[str, ...]
    shape: JsonShape | None
    hold_tokens: int | None


def checks_of(cascade: Cascade, asked: JsonShape | None, *, stream: bool) -> Checks:
    """For one request; `asked` is what it wants to have by its own word."""
    shape = None if cascade.json_answers is JsonAnswers.NEVER else asked
    if cascade.json_answers is JsonAnswers.ALWAYS or cascade.json_schema is not None:
        shape = shape or JsonShape()
    if shape is not None and cascade.json_schema is not None:
        shape = JsonShape(shape.is_object, (*shape.schemas, cascade.json_schema))
    hold_tokens = cascade.hold_tokens if stream and shape is None else None
    return Checks(cascade, tuple(map(_plain, cascade.refusals)), shape, hold_tokens)


class Judge:
    """Of one answer with one choice."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._texts: list[str] = []
        self._opening = ""
        self._chars = 0
        self._held_chars = 0
        self._refused = False
        self._calls_tools = False
        self._sum = 0.0
        self._known = 0
        self.tokens = 0
        """So many came, as far as one can see."""
        self.usage: Usage | None = None
        self.said: list[str] = []
        """All that the model wrote, for its tokenizer."""

    def see(self, event: AnswerEvent) -> Verdict | None:
        """None: it can't be said yet."""
        if type(event) is Delta:
            self._read(event)
            if self._held_chars > _MOST_HELD_CHARS:
                return Reason.TOO_LONG
            held = self._checks.hold_tokens
            return self._so_far() if held is not None and self.tokens >= held else None
        if type(event) is Usage:
            self.usage = event
        elif type(event) is Failed:
            return Reason.FAILED
        elif type(event) is Done:
            return self._whole()
        return None

    def _read(self, piece: Delta) -> None:
        self._refused = self._refused or bool(piece.refusal)
        functions = [call.get("function") or {} for call in piece.tool_calls or ()]
        self._calls_tools = self._calls_tools or bool(functions)
        self._chars += len(piece.text)
        self._texts.append(piece.text)
        if len(self._opening) < _REFUSAL_CHARS:
            self._opening += piece.text
        called = [str(function.get(part) or "") for function in functions for part in ("name", "arguments")]
        words = (piece.reasoning, piece.text, piece.refusal, *called)
        self.said += words
        self._held_chars += sum(map(len, words))
        values = list(_logprobs(piece.logprobs)) if piece.logprobs else []
        something = piece.text or piece.reasoning or piece.refusal or functions
        for value in values:
            if self._checks.hold_tokens is None or self._known < self._checks.hold_tokens:
                self._sum += min(max(value, _LEAST_LOGPROB), 0.0)
                self._known += 1
        self.tokens += len(values) or (1 if something else 0)

    def _so_far(self) -> Verdict:
        """Of an answer that goes on."""
        cascade = self._checks.cascade
        if self._refused or self._declines():
            return Reason.REFUSED
        if cascade.max_chars is not None and self._chars > cascade.max_chars:
            return Reason.TOO_LONG
        return self._confidence()

    def _whole(self) -> Verdict:
        verdict = self._so_far()
        if verdict is not GOOD or self._calls_tools:
            return verdict
        if self._chars < self._checks.cascade.min_chars:
            return Reason.TOO_SHORT
        shape = self._checks.shape
        if shape is None:
            return GOOD
        text = "".join(self._texts)
        if not shape.is_met(text):
            return Reason.NOT_JSON
        return GOOD if shape.fits(text) else Reason.SCHEMA

    def _confidence(self) -> Verdict:
        least = self._checks.cascade.min_logprob
        if least is None:
            return GOOD
        if self._known == 0:
            # Nothing was said that anybody could be sure of: its length is what counts.
            return Reason.NO_LOGPROBS if self.tokens else GOOD
        return GOOD if self._sum / self._known >= least else Reason.UNSURE

    def _declines(self) -> bool:
        opening = _plain(self._opening[:_REFUSAL_CHARS])
        return any(phrase in opening for phrase in self._checks.refusals)


def _plain(text: str) -> str:
    return text.replace("\u2019", "'").casefold()


def _logprobs(said: dict[str, Any]) -> Iterator[float]:
    """Of the tokens in a piece of a chat, or of a completion."""
    content, plain = said.get("content"), said.get("token_logprobs")
    entries: Sequence[Any] = content if isinstance(content, list) else plain if isinstance(plain, list) else ()
    for entry in entries:
        value = entry.get("logprob") if isinstance(entry, dict) else entry
        if isinstance(value, int | float) and not math.isnan(value):
            yield float(value)
