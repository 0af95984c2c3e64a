"""Small pieces of OpenAI's answer format that streamed and whole answers share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from extproc.dialects.answer import Origin, Usage
from extproc.dialects.interface import AnswerIdentity, TokenTotals
from extproc.rejection import Rejection

encode_json = msgspec.json.Encoder().encode


def error_body(rejection: Rejection) -> bytes:
    """OpenAI's error object; all four keys are always there."""
    return encode_json(
        {
            "error": {
                "message": rejection.message,
                "type": rejection.type,
                "param": rejection.param,
                "code": rejection.code,
            }
        }
    )


def usage_object(usage: Usage | None, totals: TokenTotals) -> dict[str, Any]:
    """The upstream's figures; ours where it gave none."""
    usage = usage or Usage(None, None)
    prompt = totals.prompt_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    completion = totals.completion_tokens if usage.completion_tokens is None else usage.completion_tokens
    cached = totals.cached_tokens if usage.cached_tokens is None else usage.cached_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class Renaming:
    """Puts the gateway's id and public model name into bytes an upstream wrote, changing nothing else.

    A JSON string can't contain an unescaped quote, so `"model":"x"` as bytes can only be a key and its value.
    """

    __slots__ = ("_known", "_names")

    def __init__(self, identity: AnswerIdentity, origin: Origin) -> None:
        names = ((b'"id"', origin.id, identity.id), (b'"model"', origin.model, identity.model))
        self._names = [
            (key, encode_json(old), key + b":" + encode_json(new)) for key, old, new in names if old and old != new
        ]
        self._known: list[bytes | None] = [None] * len(self._names)

    def apply(self, raw: bytes) -> bytes:
        for position, (key, value, new) in enumerate(self._names):
            old = self._known[position]
            if old is None or old not in raw:
                old = self._known[position] = _member(raw, key, value)
            if old is not None:
                raw = raw.replace(old, new, 1)
        return raw


def _member(raw: bytes, key: bytes, value: bytes) -> bytes | None:
    """A key and its value as `raw` writes them. Every answer has another id, so a pattern is the last resort."""
    for usual in (key + b":" + value, key + b": " + value):
        if usual in raw:
            return usual
    match = re.search(re.escape(key) + rb"\s*:\s*" + re.escape(value), raw)
    return None if match is None else match[0]


def merge_tool_calls(calls: list[dict[str, Any]], fragments: Iterable[dict[str, Any]]) -> None:
    """Add streamed fragments (or whole calls) to `calls`; a fragment's `index` says which call it continues."""
    for fragment in fragments:
        index = fragment.get("index", len(calls))
        while len(calls) <= index < 1024:
            calls.append({"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
        if index >= len(calls):
            continue
        call, function = calls[index], fragment.get("function") or {}
        call["id"] = fragment.get("id") or call["id"]
        call["type"] = fragment.get("type") or call["type"]
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""


def merge_logprobs(total: dict[str, Any] | None, piece: dict[str, Any]) -> dict[str, Any]:
    """Lists of both are joined, key by key."""
    if total is None:
        return dict(piece)
    for key, value in piece.items():
        if isinstance(value, list):
            total[key] = (total.get(key) or []) + value
    return total
