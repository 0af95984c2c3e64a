"""Writes the reference in configuration.md from the models, and openapi.json; tests assert that both are current.

Run `python docs/reference.py` after changing a setting.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from extproc.admin.api import endpoints_of
from extproc.admin.openapi import document
from extproc.admin.server import live_endpoint
from extproc.config.schema import schema_of_values
from extproc.policies import pipeline

OPENAPI = pathlib.Path(__file__).parent / "openapi.json"
PAGE = pathlib.Path(__file__).parent / "configuration.md"
BEGIN, END = "<!-- reference: begin -->\n", "<!-- reference: end -->\n"

Schema = dict[str, Any]


def reference() -> str:
    schema = schema_of_values(pipeline.SETTINGS)
    return "\n".join(_section("", schema, schema["$defs"])) + "\n"


def openapi() -> str:
    """The admin API's document. Its endpoints are described without a service behind them."""
    nobody: Any = None
    return json.dumps(document((*endpoints_of(nobody), live_endpoint(nobody))), indent=2) + "\n"


def page(current: str) -> str:
    """The page with its reference replaced."""
    before, rest = current.split(BEGIN)
    return before + BEGIN + "\n" + reference() + "\n" + END + rest.split(END)[1]


def _section(path: str, schema: Schema, definitions: Schema) -> Iterator[str]:
    """Headings and tables of a section and all in it."""
    if path:
        yield f"### `{path}`\n\n{schema.get('description', '')}\n"
    inner = []
    rows = []
    for key, value in schema["properties"].items():
        nested = list(_nested(f"{path}.{key}".removeprefix("."), value, definitions))
        inner += nested
        if path or not nested:
            rows.append(_row(key, value, schema, definitions))
    if rows:
        yield "| key | value | default | |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    for name, definition in inner:
        yield from _section(name, definition, definitions)


def _nested(path: str, value: Schema, definitions: Schema) -> Iterator[tuple[str, Schema]]:
    """The sections that a key's value is or contains."""
    if "$ref" in value:
        definition = _resolve(value, definitions)
        if "properties" in definition:
            kind = definition["properties"].get("type", {}).get("const")
            yield f"{path} (type: {kind})" if kind else path, definition
    for option in [*value.get("anyOf", []), *value.get("oneOf", [])]:
        yield from _nested(path, option, definitions)
    if isinstance(value.get("items"), dict):
        yield from _nested(f"{path}[]", value["items"], definitions)
    named = [*value.get("patternProperties", {}).values(), value.get("additionalProperties")]
    for option in named:
        if isinstance(option, dict):
            yield from _nested(f"{path}.<name>", option, definitions)


def _row(key: str, value: Schema, section: Schema, definitions: Schema) -> str:
    default = "required" if key in section.get("required", []) else _default(value.get("default"))
    text = value.get("description") or _resolve(value, definitions).get("description", "")
    return f"| `{key}` | {_kind(value, definitions)} | {default} | {_text(text)} |"


def _default(value: Any) -> str:
    if isinstance(value, dict):
        return ""  # its own table says
    return "" if value is None else f"`{json.dumps(value) if not isinstance(value, str) else value}`"


def _kind(value: Schema, definitions: Schema) -> str:
    value = _resolve(value, definitions)
    for alternatives in ("anyOf", "oneOf"):
        if alternatives in value:
            kinds = [_kind(option, definitions) for option in value[alternatives]]
            return " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{option}`" for option in value["enum"])
    if value.get("type") == "array":
        return f"list of {_kind(value['items'], definitions)}"
    if value.get("type") == "object":
        return "mapping"
    return _scalar(value)


def _scalar(value: Schema) -> str:
    kind = "secret" if value.get("format") == "password" else value["type"]
    low, high = value.get("minimum"), value.get("maximum")
    above = value.get("exclusiveMinimum")
    bounds = [f"≥ {low}" if low is not None else "", f"> {above}" if above is not None else ""]
    bounds.append(f"≤ {high}" if high is not None else "")
    said = ", ".join(bound for bound in bounds if bound)
    return f"{kind} {said}".strip()


def _resolve(value: Schema, definitions: Schema) -> Schema:
    while "$ref" in value:
        value = definitions[value["$ref"].removeprefix("#/$defs/")]
    return value


def _text(description: str) -> str:
    return " ".join(description.replace("|", "\\|").split())


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    OPENAPI.write_text(openapi())
