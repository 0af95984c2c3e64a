"""Parsed OpenAI requests. Their body, as a dict of OpenAI's fields, is the form every pool dialect translates from.

A client API with another body format (Anthropic Messages, say) parses into these same classes, so that no pool
dialect needs to know it. Must not know: how a pool wants the request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from extproc.dialects import openai_essence
from extproc.dialects import openai_schema as schema
from extproc.dialects.interface import Notation, TextSegment, Unread
from extproc.dialects.openai_validation import check, refuse
from extproc.operation import Operation

_LABELS = ("user", "safety_identifier", "prompt_cache_key", "metadata")
_REASONING = ("reasoning", "reasoning_content")
_ROLES = {"developer": "system", "function": "tool"}


class OpenAiRequest(ABC):
    """What the three bodies have in common. `fields` is the body; whoever changes it changes the request."""

    __slots__ = ("choices", "fields", "include_usage", "model", "operation", "output_limit_tokens", "stream")

    def __init__(self, operation: Operation, fields: dict[str, Any]) -> None:
        self.operation = operation
        self.fields = fields
        self.model: str = fields["model"]
        self.stream = fields.get("stream") is True
        options = fields.get("stream_options")  # of embeddings nobody has checked it
        self.include_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        self.choices: int = 1
        self.output_limit_tokens: int | None = None

    def texts(self) -> Sequence[TextSegment]:
        return list(self._segments())

    def essence(self) -> dict[str, Any] | None:
        return openai_essence.essence(self.fields)

    @abstractmethod
    def _segments(self) -> Iterator[TextSegment]: ...

    def labels(self) -> Sequence[TextSegment]:
        return [segment for key in _LABELS for segment in _leaves("label", self.fields.get(key), (key,))]

    @abstractmethod
    def unread(self) -> frozenset[Unread]: ...

    def replace_texts(self, changed: Sequence[TextSegment]) -> None:
        for segment in changed:
            *path, last = segment.locator
            place: Any = self.fields
            for step in path:
                place = place[step]
            place[last] = segment.text


class ChatRequest(OpenAiRequest):
    """`POST /v1/chat/completions`."""

    __slots__ = ()

    def __init__(self, fields: dict[str, Any]) -> None:
        check(fields, schema.ChatBody)
        super().__init__(Operation.CHAT, fields)
        _check_stream_options(fields)
        for index, message in enumerate(fields["messages"]):
            if message["role"] == "assistant":
                _check_assistant(index, message)
        if fields.get("top_logprobs") is not None and not fields.get("logprobs"):
            refuse("'top_logprobs' is only allowed when 'logprobs' is enabled.", "top_logprobs")
        self.choices = fields.get("n") or 1
        caps = (fields.get("max_tokens"), fields.get("max_completion_tokens"))
        self.output_limit_tokens = max((cap for cap in caps if cap is not None), default=None)

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.fields["messages"]
        return messages

    def labels(self) -> Sequence[TextSegment]:
        names = [
            TextSegment("label", message["name"], ("messages", index, "name"), Notation.NAME)
            for index, message in enumerate(self.messages)
            if message.get("name") and message["role"] != "function"
        ]
        return [*names, *super().labels()]

    def unread(self) -> frozenset[Unread]:
        contents = (message.get("content") for message in self.messages)
        media = any(
            part["type"] not in ("text", "refusal") for content in contents if type(content) is list for part in content
        )
        return frozenset({Unread.MEDIA} if media else ())

    def _segments(self) -> Iterator[TextSegment]:
        for index, message in enumerate(self.messages):
            role = _ROLES.get(message["role"], message["role"])
            content = message.get("content")
            if type(content) is str:
                yield TextSegment(role, content, ("messages", index, "content"))
            elif content:
                for position, part in enumerate(content):
                    kind = part["type"]
                    if kind in ("text", "refusal"):
                        yield TextSegment(role, part[kind], ("messages", index, "content", position, kind))
            if role == "assistant":
                yield from _assistant_extras(index, message)
        yield from _leaves("assistant", self.fields.get("prediction"), ("prediction",))
        yield from _leaves("tool", self.fields.get("documents"), ("documents",))  # vLLM's, for retrieval


def _leaves(role: str, value: Any, path: tuple[int | str, ...]) -> Iterator[TextSegment]:
    """Every string in a value, save what kind of thing it is. Bodies are not nested deeper than MAX_DEPTH."""
    if type(value) is str:
        if path[-1] != "type":
            yield TextSegment(role, value, path)
        return
    items = value.items() if type(value) is dict else enumerate(value) if type(value) is list else ()
    for key, item in items:
        yield from _leaves(role, item, (*path, key))


def _assistant_extras(index: int, message: dict[str, Any]) -> Iterator[TextSegment]:
    if message.get("refusal"):
        yield TextSegment("assistant", message["refusal"], ("messages", index, "refusal"))
    place = ("messages", index, "tool_calls")
    for position, call in enumerate(message.get("tool_calls") or ()):
        if call.get("function"):
            arguments = call["function"]["arguments"]
            yield TextSegment("assistant", arguments, (*place, position, "function", "arguments"), Notation.JSON)
        custom = call.get("custom")
        if type(custom) is dict:
            yield from _leaves("assistant", custom.get("input"), (*place, position, "custom", "input"))
    if call := message.get("function_call"):
        arguments = call["arguments"]
        yield TextSegment("assistant", arguments, ("messages", index, "function_call", "arguments"), Notation.JSON)
    for key in _REASONING:
        if type(message.get(key)) is str:
            yield TextSegment("assistant", message[key], ("messages", index, key))


def _check_assistant(index: int, message: dict[str, Any]) -> None:
    if all(message.get(key) is None for key in ("content", "tool_calls", "function_call", "refusal", "audio")):
        param = f"messages[{index}].content"
        refuse(f"Invalid value for '{param}': expected a string, got null.", param, "invalid_type")


def _check_stream_options(fields: dict[str, Any]) -> None:
    if fields.get("stream_options") is not None and not fields.get("stream"):
        refuse("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")


class CompletionRequest(OpenAiRequest):
    """`POST /v1/completions`."""

    __slots__ = ()

    def __init__(self, fields: dict[str, Any]) -> None:
        check(fields, schema.CompletionBody)
        super().__init__(Operation.COMPLETIONS, fields)
        _check_stream_options(fields)
        _check_inputs("prompt", fields["prompt"], empty_text=True)
        n, best_of = fields.get("n") or 1, fields.get("best_of")
        if best_of is not None and best_of < n:
            refuse("'best_of' must be at least 'n'.", "best_of")
        if best_of is not None and best_of > 1 and self.stream:
            refuse("'best_of' larger than 1 can't be streamed.", "best_of")
        self.choices = max(n, best_of or 1) * len(inputs_of(fields["prompt"]))
        self.output_limit_tokens = fields.get("max_tokens")

    def unread(self) -> frozenset[Unread]:
        return _token_ids(self.fields["prompt"])

    def _segments(self) -> Iterator[TextSegment]:
        yield from _input_segments("prompt", self.fields["prompt"])
        if self.fields.get("suffix"):
            yield TextSegment("input", self.fields["suffix"], ("suffix",))


class EmbeddingsRequest(OpenAiRequest):
    """`POST /v1/embeddings`. Generates nothing, so its output limit is 0."""

    __slots__ = ()

    def __init__(self, fields: dict[str, Any]) -> None:
        check(fields, schema.EmbeddingsBody)
        super().__init__(Operation.EMBEDDINGS, fields)
        _check_inputs("input", fields["input"], empty_text=False)
        self.stream = False
        self.output_limit_tokens = 0

    @property
    def inputs(self) -> list[Any]:
        """Each a string or a list of token ids."""
        return inputs_of(self.fields["input"])

    def keep_inputs(self, positions: Sequence[int]) -> None:
        """Ask for these alone, in this order."""
        inputs = self.inputs
        self.fields["input"] = [inputs[position] for position in positions]

    def unread(self) -> frozenset[Unread]:
        return _token_ids(self.fields["input"])

    def _segments(self) -> Iterator[TextSegment]:
        return _input_segments("input", self.fields["input"])


def inputs_of(value: str | list[Any]) -> list[Any]:
    """The inputs in `prompt` or `input`: each a string or a list of token ids."""
    if isinstance(value, str) or type(value[0]) is int:
        return [value]
    return value


def _token_ids(value: str | list[Any]) -> frozenset[Unread]:
    texts = not value or all(isinstance(item, str) for item in inputs_of(value))
    return frozenset(() if texts else {Unread.TOKEN_IDS})


def _input_segments(name: str, value: str | list[Any]) -> Iterator[TextSegment]:
    if isinstance(value, str):
        yield TextSegment("input", value, (name,))
        return
    for index, item in enumerate(value):
        if isinstance(item, str):
            yield TextSegment("input", item, (name, index))


def _check_inputs(name: str, value: str | list[Any], *, empty_text: bool) -> None:
    """A string, strings, token ids, or arrays of token ids; not mixed, not empty, not too many."""
    if not value:
        if not (isinstance(value, str) and empty_text):
            kind = "string" if isinstance(value, str) else "array"
            refuse(f"Invalid '{name}': empty {kind}.", name, f"empty_{kind}")
        return
    if isinstance(value, str):
        return
    kinds = {type(item) for item in value}
    if kinds == {int}:
        _check_tokens(name, value)
        return
    if len(value) > schema.MAX_INPUTS:
        refuse(
            f"Invalid '{name}': array too long. Expected an array with maximum length {schema.MAX_INPUTS}, "
            f"but got an array with length {len(value)} instead.",
            name,
            "array_above_max_length",
        )
    if kinds == {list}:
        for index, tokens in enumerate(value):
            _check_tokens(f"{name}[{index}]", tokens)
    elif kinds != {str}:
        refuse(
            f"Invalid type for '{name}': expected a string, an array of strings, an array of token ids, "
            "or an array of arrays of token ids.",
            name,
            "invalid_type",
        )
    elif not empty_text and "" in value:
        refuse(
            f"Invalid '{name}[{value.index('')}]': empty string.",
            f"{name}[{value.index('')}]",
            "empty_string",
        )


def _check_tokens(name: str, tokens: list[Any]) -> None:
    if not tokens:
        refuse(f"Invalid '{name}': empty array.", name, "empty_array")
    try:
        msgspec.convert(tokens, schema.TokenArray)
    except msgspec.ValidationError:
        refuse(f"Invalid type for '{name}': expected an array of token ids.", name, "invalid_type")
