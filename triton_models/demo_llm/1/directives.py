"""Test directives inside a prompt: `[[demo:NAME]]` or `[[demo:NAME=VALUE]]`. Owns: their grammar.

Only the last user turn is searched, so that a directive acts once and not on every later turn.
"""

import re
from dataclasses import dataclass

_DIRECTIVE = re.compile(r"\[\[demo:([a-z_-]+)(?:=(-?[0-9.]+))?\]\]")
# ChatML, which the demo configuration renders. Any other prompt is one user turn as a whole.
_LAST_USER_TURN = re.compile(r".*<\|im_start\|>user\n(.*?)(?:<\|im_end\|>|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Directives:
    error_before: bool = False
    error_after: int | None = None
    crash_after: int | None = None
    tokens: int | None = None
    tpot_ms: float | None = None
    ttft_ms: float | None = None
    logprob: float | None = None
    echo: str | None = None


def last_user_text(prompt: str) -> str:
    turn = _LAST_USER_TURN.match(prompt)
    return turn.group(1) if turn else prompt


def parse(prompt: str) -> Directives:
    """Unknown names and missing values are ignored: the text is a user's, not a program's."""
    text = last_user_text(prompt)
    given = {name.replace("-", "_"): value for name, value in _DIRECTIVE.findall(text)}
    return Directives(
        error_before="error_before" in given,
        error_after=_count(given.get("error_after")),
        crash_after=_count(given.get("crash_after")),
        tokens=_count(given.get("tokens")),
        tpot_ms=_milliseconds(given.get("tpot_ms")),
        ttft_ms=_milliseconds(given.get("ttft_ms")),
        logprob=_number(given.get("logprob")),
        echo=_DIRECTIVE.sub("", text).strip(" \n") if "echo" in given else None,
    )


def _count(value: str | None) -> int | None:
    return int(value) if value and value.isdecimal() else None


def _milliseconds(value: str | None) -> float | None:
    number = _number(value)
    return None if number is None or number < 0 else number


def _number(value: str | None) -> float | None:
    try:
        return float(value) if value else None
    except ValueError:
        return None
