"""The JSON Schema of gateway.yaml as it is written, for editors.

Must not know: what any policy's settings are; they come with the call.
"""

from typing import Any

import pydantic
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import WithDefaultSchema

from extproc.config.address import TcpAddress, UnixAddress
from extproc.config.loader import PolicyTypes, config_type
from extproc.config.section import Section

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# In the file any scalar may be written as a variable, which the schema of its value would refuse.
_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_SCALARS = frozenset({"integer", "number", "boolean", "string"})


def json_schema(policy_settings: PolicyTypes) -> dict[str, Any]:
    """The schema, with a section for each of `policy_settings`."""
    return {"$schema": _DIALECT, **_with_variables(schema_of_values(policy_settings))}


def schema_of_values(policy_settings: PolicyTypes) -> dict[str, Any]:
    """The schema of what is left when variables have been replaced."""
    return config_type(policy_settings).model_json_schema(schema_generator=_Generator)


class _Generator(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        match dft:
            case TcpAddress() | UnixAddress():
                return str(dft)
            case pydantic.SecretStr():  # a default is no secret
                return dft.get_secret_value()
            case _:
                return super().encode_default(dft)

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        if isinstance(schema.get("default"), Section):
            described.pop("default", None)  # its own keys say
        return described


def _with_variables(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_variables(item) for item in node]
    if not isinstance(node, dict):
        return node
    converted = {key: _convert(key, value) for key, value in node.items()}
    if "patternProperties" in node:  # pydantic leaves it to the pattern, which only says what fitting keys have
        converted["additionalProperties"] = False
    takes_any_text = node.get("type") == "string" and not {"pattern", "enum", "format"} & node.keys()
    if node.get("type") not in _SCALARS or takes_any_text or "const" in node:
        return converted
    shown = {key: converted.pop(key) for key in ("title", "description", "default") if key in converted}
    return {**shown, "anyOf": [converted, _VARIABLE]}


def _convert(keyword: str, value: Any) -> Any:
    if keyword in {"properties", "patternProperties", "$defs"}:
        return {name: _with_variables(schema) for name, schema in value.items()}
    return value if keyword in {"default", "enum", "required"} else _with_variables(value)
