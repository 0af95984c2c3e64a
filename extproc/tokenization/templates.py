"""Chat templates: messages -> one prompt. Built-in ones here, a model's own in `jinja`.

Every text of the client is made harmless first: a special token in it is broken up, so that nobody can forge a
system turn, and so that special tokens in a rendered prompt are the template's alone.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from extproc.tokenization.encodings import special_pattern

Messages = Sequence[dict[str, Any]]
Tools = Sequence[Any] | None

MEDIA_MARK = {"type": "image"}
"""What a template gets for a part that is not text; its tokens are counted separately."""


class ChatTemplate(Protocol):
    """Renders prepared messages (see `Preparation`), ending where the assistant's answer begins."""

    special_tokens: frozenset[str]
    begin: str
    """The special token that a prompt starts with, or nothing."""

    def render(self, messages: Messages, tools: Tools) -> str:
        """Raises InvalidRequest for messages it can't take."""


class Preparation:
    """Turns OpenAI's messages into what templates know: system for developer, joined text parts, decoded arguments."""

    def __init__(self, special_tokens: Iterable[str]) -> None:
        # A token of one character or with white space in it can't be broken, and marks no turn in any template.
        tokens = {token for token in special_tokens if len(token) > 1 and not re.search(r"\s", token)}
        self._specials = special_pattern(tokens)
        # Most texts don't have even the first character of one.
        self._first = "".join(sorted({token[0] for token in tokens}))

    def messages(self, messages: Messages) -> list[dict[str, Any]]:
        return [self._message(message) for message in messages]

    def tools(self, tools: Tools) -> Tools:
        return None if not tools else [self._harmless(tool) for tool in tools]

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        prepared: dict[str, Any] = {"role": "system" if message["role"] == "developer" else message["role"]}
        for key, value in message.items():
            if key == "content":
                prepared[key] = self._content(value)
            elif key == "tool_calls" and value:
                prepared[key] = [self._tool_call(call) for call in value]
            elif key != "role":
                prepared[key] = self._harmless(value)
        return prepared

    def _content(self, content: Any) -> Any:
        if isinstance(content, str):
            return self._text(content)
        if content is None:
            return ""
        if all(part["type"] in ("text", "refusal") for part in content):
            return self._text("\n".join(part.get("text") or part.get("refusal") or "" for part in content))
        return [
            {"type": "text", "text": self._text(part["text"])} if part["type"] == "text" else MEDIA_MARK
            for part in content
        ]

    def _tool_call(self, call: dict[str, Any]) -> Any:
        """Templates of models want the arguments as an object, where OpenAI has JSON in a string."""
        function = call.get("function")
        if isinstance(function, dict):
            with contextlib.suppress(ValueError, RecursionError):
                call = {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
        return self._harmless(call)

    def _harmless(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {self._text(key): self._harmless(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._harmless(item) for item in value]
        return value

    def _text(self, text: str) -> str:
        """`<|im_end|>` becomes `< |im_end|>`; again until none is left, for breaking one could make another."""
        if self._specials is None or not any(first in text for first in self._first):
            return text
        while self._specials.search(text):
            text = self._specials.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return text


class ChatML:
    """`<|im_start|>role\\ncontent<|im_end|>\\n`: Qwen, many fine-tunes, and OpenAI's own first format."""

    begin = ""
    special_tokens = frozenset({"<|im_start|>", "<|im_end|>"})

    def render(self, messages: Messages, tools: Tools) -> str:
        turns = [
            f"<|im_start|>{message['role']}\n{_spoken(message)}<|im_end|>\n" for message in _with_tools(messages, tools)
        ]
        return "".join(turns) + "<|im_start|>assistant\n"


class Llama3:
    """`<|start_header_id|>role<|end_header_id|>\\n\\ncontent<|eot_id|>`, after `<|begin_of_text|>`."""

    begin = "<|begin_of_text|>"
    special_tokens = frozenset({begin, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"})

    def render(self, messages: Messages, tools: Tools) -> str:
        turns = [
            f"{_llama3_header(message['role'])}{_spoken(message).strip()}<|eot_id|>"
            for message in _with_tools(messages, tools)
        ]
        return self.begin + "".join(turns) + _llama3_header("assistant")


def _llama3_header(role: str) -> str:
    return f"<|start_header_id|>{'ipython' if role == 'tool' else role}<|end_header_id|>\n\n"


def _spoken(message: dict[str, Any]) -> str:
    """Everything a turn says as text; built-in templates write tool calls as lines of JSON."""
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "\n".join(part["text"] for part in content if part["type"] == "text")
    lines = [content] if content else []
    lines += [_json(call.get("function") or call) for call in message.get("tool_calls") or ()]
    return "\n".join(lines)


def _with_tools(messages: Messages, tools: Tools) -> Messages:
    """Tools are described at the end of the system turn."""
    if not tools:
        return messages
    described = "\n".join(["# Tools", *map(_json, tools)])
    if messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{_spoken(messages[0])}\n\n{described}"}, *messages[1:]]
    return [{"role": "system", "content": described}, *messages]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


BUILT_IN: dict[str, ChatTemplate] = {"chatml": ChatML(), "llama3": Llama3()}
