"""A model's own chat template: Jinja as in Hugging Face's `chat_template`, in a sandbox.

Owns what a template may do: no attributes of Python objects, no changes to its input, output and repetition bounded.
The template is the operator's, the messages are the client's: a template that refuses or chokes on messages is
the client's 400, never a crash.
"""

from __future__ import annotations

import datetime
import json
import re
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from extproc.dialects.interface import InvalidRequest
from extproc.rejection import invalid_request
from extproc.tokenization.templates import Messages, Tools

_SPECIAL = re.compile(r"<\|[A-Za-z0-9_]{1,40}\|>")
_MAX_REPEAT = 100_000
_MAX_GROWTH = 16
_MAX_BASE_CHARS = 1 << 20
_CHOKED = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class _Refused(jinja2.TemplateError):
    """`raise_exception` of the template; its message is meant for the caller."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Also bounds `*` and `**`, which could fill the memory in one step."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = (type(left) in (int, float)) + (type(right) in (int, float))
        sizes = [len(value) for value in (left, right) if isinstance(value, str | list | tuple)]
        repeats = [value for value in (left, right) if isinstance(value, int)]
        if operator == "**" and (numbers < 2 or right > 64):
            raise jinja2.TemplateRuntimeError("the exponent is too large")
        if sizes and max(repeats, default=0) * max(sizes) > _MAX_REPEAT:
            raise jinja2.TemplateRuntimeError("the repeated text is too long")
        return super().call_binop(context, operator, left, right)


def special_tokens_in(source: str) -> frozenset[str]:
    """Special tokens that a template writes out; a rank file can't tell them."""
    return frozenset(_SPECIAL.findall(source))


class JinjaTemplate:
    """Raises ValueError for a template that can't be compiled."""

    def __init__(self, source: str, begin: str) -> None:
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self.begin = begin
        self.special_tokens = special_tokens_in(source)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"line {error.lineno}: {error.message}") from None

    def render(self, messages: Messages, tools: Tools) -> str:
        limit_chars = _MAX_BASE_CHARS + _MAX_GROWTH * sum(len(str(message)) for message in messages)
        parts: list[str] = []
        size_chars = 0
        try:
            for part in self._template.generate(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=True,
                bos_token=self.begin,
                eos_token="",
            ):
                parts.append(part)
                size_chars += len(part)
                if size_chars > limit_chars:
                    raise jinja2.TemplateRuntimeError("the prompt is too long")
        except _Refused as error:
            _refuse(f": {error}")
        # Whatever a template does with messages it was not made for, the request can't be rendered.
        except _CHOKED:
            _refuse("")
        return "".join(parts)


def _refuse(why: str) -> NoReturn:
    raise InvalidRequest(
        invalid_request(f"The messages do not fit the chat template of this model{why}.", "messages")
    ) from None


def _raise_exception(message: str) -> NoReturn:
    raise _Refused(message)


def _tojson(value: Any, indent: int | None = None, ensure_ascii: bool = False, **_: Any) -> str:
    """Without the HTML escapes of Jinja's own filter: this is a prompt, not a page."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _strftime_now(layout: str) -> str:
    return datetime.datetime.now(datetime.UTC).strftime(layout)
