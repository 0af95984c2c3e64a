"""The JSON Schema agrees with the loader, and the reference in the documentation with both."""

import json
import pathlib
import re
import runpy
from typing import Any

import pytest
import yaml

from extproc import config
from extproc.config.schema import schema_of_values
from extproc.policies import pipeline

ROOT = pathlib.Path(__file__).parents[3]
EXAMPLE = ROOT / "envoy" / "gateway.yaml"
Schema = dict[str, Any]

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def fits(value: Any, schema: Schema, root: Schema) -> bool:
    """Whether `value` is valid: the part of JSON Schema that ours uses."""
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "anyOf" in schema:
        return any(fits(value, option, root) for option in schema["anyOf"])
    if "oneOf" in schema:
        return sum(fits(value, option, root) for option in schema["oneOf"]) == 1
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if not isinstance(value, TYPES[schema["type"]]) or isinstance(value, bool) != (schema["type"] == "boolean"):
        return False
    if isinstance(value, dict):
        return _object_fits(value, schema, root)
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(fits(item, schema["items"], root) for item in value)
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None
    return value is None or schema.get("minimum", value) <= value <= schema.get("maximum", value)


def _object_fits(value: dict[str, Any], schema: Schema, root: Schema) -> bool:
    if not set(schema.get("required", [])) <= value.keys():
        return False
    for key, inner in value.items():
        options = [schema["properties"][key]] if key in schema.get("properties", {}) else []
        options += [
            option for pattern, option in schema.get("patternProperties", {}).items() if re.search(pattern, key)
        ]
        if not options and schema.get("additionalProperties") is False:
            return False
        if not all(fits(inner, option, root) for option in options):
            return False
    return True


@pytest.fixture(scope="module")
def schema() -> Schema:
    return config.json_schema(pipeline.SETTINGS)


@pytest.fixture
def example() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    return content


def test_the_example_fits_as_it_is_written(schema: Schema, example: dict[str, Any]) -> None:
    assert fits(example, schema, schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("gateway", "max_body_bytes"), "many"),
        (("gateway", "max_body_bytes"), 1),
        (("gateway", "unknown"), 1),
        (("service", "on_failure"), "ajar"),
        (("models", "demo-llm", "tokenizer", "type"), "none"),
        (("models", "a b"), {}),
        (("pools", "demo", "clusters"), []),
        (("policies", "unknown"), {}),
        (("policies", "identify", "mode"), "loud"),
    ],
)
def test_what_the_loader_refuses_does_not_fit(
    schema: Schema, example: dict[str, Any], path: tuple[str, ...], value: object
) -> None:
    *parents, last = path
    place = example
    for key in parents:
        place = place[key]
    place[last] = value
    assert not fits(example, schema, schema)


def test_variables_may_stand_for_any_scalar(schema: Schema, example: dict[str, Any]) -> None:
    example["gateway"]["max_body_bytes"] = "${SIZE}"
    example["service"]["on_failure"] = "${MODE:-closed}"
    example["pools"]["demo"]["http2"] = "${HTTP2:-false}"
    assert fits(example, schema, schema)


def test_every_default_fits_its_own_schema() -> None:
    root = schema_of_values(pipeline.SETTINGS)
    for definition in root["$defs"].values():
        for key, value in definition.get("properties", {}).items():
            assert "default" not in value or fits(value["default"], value, root), key


def test_every_key_is_described() -> None:
    root = schema_of_values(pipeline.SETTINGS)
    for name, definition in root["$defs"].items():
        for key, value in definition.get("properties", {}).items():
            referred = root["$defs"].get(value.get("$ref", "").rsplit("/", 1)[-1], {})
            assert key == "type" or value.get("description") or referred.get("description"), f"{name}.{key}"


def test_it_is_json(schema: Schema) -> None:
    assert json.loads(json.dumps(schema)) == schema


def test_the_reference_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "reference.py"))["page"]
    current = (ROOT / "docs" / "configuration.md").read_text()
    assert page(current) == current, "run `python docs/reference.py`"
