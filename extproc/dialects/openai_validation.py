"""Bytes -> a validated dict, or InvalidRequest in OpenAI's words (message, `param` path and `code`).

Owns JSON decoding of request bodies and the translation of msgspec's errors; what is valid stands in
`openai_schema`. Of a key given twice the last value counts, and only that one goes upstream, so that no server
reads another request than the policies did.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import msgspec

from extproc.dialects.interface import InvalidRequest
from extproc.rejection import invalid_request

MAX_DEPTH = 64
"""Deepest nesting of a request body; real ones (JSON schemas of tools) stay well below."""

_decoder = msgspec.json.Decoder()

_SUPPORTED = {
    "role": ("system", "assistant", "user", "function", "tool", "developer"),
    "content.type": ("text", "image_url", "input_audio", "refusal", "file"),
    "tools.type": ("function", "custom"),
    "response_format.type": ("text", "json_object", "json_schema"),
    "tool_choice": ("none", "auto", "required"),
    "encoding_format": ("float", "base64"),
}
_NAMES = {
    "int": "an integer",
    "float": "a decimal",
    "str": "a string",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_PATH = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_MISSING = re.compile(r"Object missing required field `(.+)`$")
_TYPE = re.compile(r"Expected `(.+)`, got `(.+)`$")
_RANGE = re.compile(r"Expected `(\w+)` (>=|<=) (\S+)$")
_LENGTH = re.compile(r"Expected `(\w+)` of length (>=|<=) (\d+)$")


def refuse(message: str, param: str | None = None, code: str | None = None) -> NoReturn:
    """Raise the 400 that names `param`."""
    raise InvalidRequest(invalid_request(message, param, code))


def decode_object(body: bytes) -> dict[str, Any]:
    """The body as a dict of bounded depth. Raises InvalidRequest."""
    try:
        fields = _decoder.decode(body)
    except RecursionError:
        refuse(f"The JSON body of your request is nested deeper than {MAX_DEPTH} levels.")
    except UnicodeDecodeError:
        refuse("We could not parse the JSON body of your request: it is not valid UTF-8.")
    except ValueError as error:
        refuse(f"We could not parse the JSON body of your request: {error}.")
    if not isinstance(fields, dict):
        refuse("The JSON body of your request must be an object.")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check_depth(fields)
    return fields


def _check_depth(fields: dict[str, Any]) -> None:
    """A body that decodes may still be too deep to encode from a deeper stack, and for the server behind us."""
    level: list[Any] = [fields]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    refuse(f"The JSON body of your request is nested deeper than {MAX_DEPTH} levels.")


def check(fields: dict[str, Any], schema: type[msgspec.Struct]) -> None:
    """Raises InvalidRequest unless `fields` are what `schema` says."""
    try:
        msgspec.convert(fields, schema)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_explain(str(error), fields)) from None


def _explain(error: str, fields: dict[str, Any]) -> Any:
    match = _PATH.match(error)
    what, path = (match[1], match[2] or "") if match else (error, "")
    path = path.split("[...]")[0]
    return (
        _missing(what, path)
        or _wrong_type(what, path)
        or _out_of_range(what, path, fields)
        or _wrong_length(what, path, fields)
        or _unsupported(path, fields)
    )


def _missing(what: str, path: str) -> Any:
    if not (match := _MISSING.match(what)):
        return None
    param = f"{path}.{match[1]}" if path else match[1]
    return invalid_request(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def _wrong_type(what: str, path: str) -> Any:
    if not (match := _TYPE.match(what)):
        return None
    wanted = [_NAMES.get(name, name) for name in match[1].split(" | ") if name != "null"]
    expected = wanted[0] if len(wanted) == 1 else f"one of {' or '.join(wanted)}"
    got = _NAMES.get(match[2], match[2])
    message = f"Invalid type for '{path}': expected {expected}, but got {got} instead."
    return invalid_request(message, path, "invalid_type")


def _out_of_range(what: str, path: str, fields: dict[str, Any]) -> Any:
    if not (match := _RANGE.match(what)):
        return None
    kind = "integer" if match[1] == "int" else "decimal"
    side, code = ("below minimum", "below_min") if match[2] == ">=" else ("above maximum", "above_max")
    value = _value_at(fields, path)
    got = str(value)[:40] if isinstance(value, int | float) else "another"
    message = (
        f"Invalid '{path}': {kind} {side} value. "
        f"Expected a value {match[2]} {float(match[3]):.10g}, but got {got} instead."
    )
    return invalid_request(message, path, f"{kind}_{code}_value")


def _wrong_length(what: str, path: str, fields: dict[str, Any]) -> Any:
    if not (match := _LENGTH.match(what)):
        return None
    kind = "array" if match[1] == "array" else "string"
    value = _value_at(fields, path)
    length = len(value) if isinstance(value, list | str) else 0
    if length == 0:
        message = f"Invalid '{path}': empty {kind}. Expected {_article(kind)} with minimum length {match[3]}"
        return invalid_request(f"{message}, but got an empty {kind} instead.", path, f"empty_{kind}")
    side, code = ("short", "below_min") if match[2] == ">=" else ("long", "above_max")
    bound = "minimum" if match[2] == ">=" else "maximum"
    message = (
        f"Invalid '{path}': {kind} too {side}. Expected {_article(kind)} with {bound} length {match[3]}, "
        f"but got {_article(kind)} with length {length} instead."
    )
    return invalid_request(message, path, f"{kind}_{code}_length")


def _article(kind: str) -> str:
    return "an array" if kind == "array" else "a string"


def _unsupported(path: str, fields: dict[str, Any]) -> Any:
    """An enumeration (or a role, or a part's type) with a value we do not know."""
    plain = re.sub(r"\[\d+\]", "", path)
    values = next((names for end, names in _SUPPORTED.items() if plain.endswith(end)), ())
    *most, last = map(repr, values) if values else ("", "")
    supported = f" Supported values are: {', '.join(most)}, and {last}." if values else ""
    value = _value_at(fields, path)
    # Repeated only if it can't be somebody's words.
    got = f": '{value}'" if isinstance(value, str) and _LABEL.fullmatch(value) else ""
    return invalid_request(f"Invalid value{got}.{supported}", path or None, "invalid_value")


def _value_at(fields: Any, path: str) -> Any:
    for step in _STEP.finditer(path):
        key = int(step[2]) if step[2] is not None else step[1]
        try:
            fields = fields[key]
        except (KeyError, IndexError, TypeError):
            return None
    return fields
