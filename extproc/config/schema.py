"""The JSON Schema of gateway.yaml as it is written, for editors.

Must not know: what any policy's settings are; they come with the call.
"""

from typing import Any

from extproc.config.loader import PolicyTypes, config_type

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# In the file any scalar may be written as a variable, which the schema of its value would refuse.
_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_SCALARS = frozenset({"integer", "number", "boolean", "string"})


def json_schema(policy_settings: PolicyTypes) -> dict[str, Any]:
    """The schema, with a section for each of `policy_settings`."""
    schema = config_type(policy_settings).model_json_schema()
    return {"$schema": _DIALECT, **_with_variables(schema)}


def _with_variables(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_variables(item) for item in node]
    if not isinstance(node, dict):
        return node
    converted = {key: _convert(key, value) for key, value in node.items()}
    takes_any_text = node.get("type") == "string" and not {"pattern", "enum", "format"} & node.keys()
    if node.get("type") not in _SCALARS or takes_any_text or "const" in node:
        return converted
    shown = {key: converted.pop(key) for key in ("title", "description", "default") if key in converted}
    return {**shown, "anyOf": [converted, _VARIABLE]}


def _convert(keyword: str, value: Any) -> Any:
    if keyword in {"properties", "$defs"}:
        return {name: _with_variables(schema) for name, schema in value.items()}
    return value if keyword in {"default", "enum", "required"} else _with_variables(value)
