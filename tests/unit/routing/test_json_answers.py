"""JSON answers: read, held against schemas, and never for long."""

import json
from typing import Any

import pytest

from extproc.routing import json_answers
from extproc.routing.json_answers import JsonShape

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("text", ["", "hello", "{", '{"a": 1} and more', "```json\n{}\n```", "[" * 100_000])
def test_what_is_no_json(text: str) -> None:
    assert not JsonShape().is_met(text)


@pytest.mark.parametrize(("text", "is_object"), [("7", False), ("[]", False), ('"x"', False), ("{}", True)])
def test_an_object_where_one_is_wanted(text: str, is_object: bool) -> None:
    assert JsonShape().is_met(text)
    assert JsonShape(is_object=True).is_met(text) is is_object


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"name": "x", "age": 3}', True),
        ('{"name": "x"}', True),
        ('{"age": 3}', False),
        ('{"name": 3}', False),
        ('{"name": "x", "age": -1}', False),
        ('{"name": "x", "more": 1}', False),
    ],
)
def test_a_schema(text: str, fits: bool) -> None:
    assert JsonShape(schemas=(PERSON,)).fits(text) is fits


def test_every_schema_has_to_fit() -> None:
    shape = JsonShape(schemas=({"type": "object"}, {"maxProperties": 1}))
    assert shape.fits('{"a": 1}')
    assert not shape.fits('{"a": 1, "b": 2}')


def test_references_within_a_schema_are_followed() -> None:
    tree = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}}
    shape = JsonShape(schemas=(tree,))
    assert shape.fits('{"next": {"next": {}}}')
    assert not shape.fits('{"next": {"next": 1}}')


def bomb() -> dict[str, Any]:
    """Each definition asks twice for the next: two to the power of sixty checks."""
    both = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
    return {"$ref": "#/$defs/d0", "$defs": {**both, "d60": {"type": "string"}}}


CAN_NOT_BE_CHECKED: dict[str, Any] = {
    "takes for ever": bomb(),
    "asks itself": {"$ref": "#"},
    "is elsewhere": {"$ref": "http://127.0.0.1:9/schema.json"},
    "is a file": {"$ref": "file:///etc/hostname"},
    "points nowhere": {"$ref": "#/$defs/none"},
    "is no schema": {"type": 7, "required": 1},
    "has an unknown type": {"type": "colour"},
    "has a pattern": {"pattern": "(a+)+$"},
    "has patterns of names": {"patternProperties": {"(a+)+$": False}, "additionalProperties": False},
    "has many equal items": {"uniqueItems": True},
}


@pytest.mark.parametrize("case", CAN_NOT_BE_CHECKED)
def test_a_schema_that_can_not_be_checked_asks_for_json_alone(case: str) -> None:
    """The texts don't fit, or would take for ever to be found out."""
    text = "[" + ",".join(str(n) for n in range(5_000)) + "]"
    for said in ('"' + "a" * 40 + '!"', '{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!": 1}', text):
        assert JsonShape(schemas=(CAN_NOT_BE_CHECKED[case],)).fits(said)


def deep(items: int) -> dict[str, Any]:
    """Few items at its top, many below."""
    return {"below": {"further": list(range(items))}}


@pytest.mark.parametrize("keyword", ["const", "enum"])
def test_comparing_with_much_below_the_top_counts_as_much(keyword: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many references to one big value, each of them a comparison to its very end: not more than the budget has."""
    compared = 0

    class Counted(int):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return int(self) == other

        __hash__ = int.__hash__

    said = deep(1000)
    value: Any = {"below": {"further": [Counted(n) for n in range(1000)]}}
    schema = {
        "allOf": [{"$ref": "#/$defs/big"}] * 5000,
        "$defs": {"big": {keyword: value if keyword == "const" else [value]}},
    }
    assert JsonShape(schemas=(schema,)).fits(json.dumps(said))
    assert 0 < compared <= json_answers.MOST_STEPS
    few = {**schema, "allOf": [{"$ref": "#/$defs/big"}, {"type": "array"}]}
    assert not JsonShape(schemas=(few,)).fits(json.dumps(said))


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"uniqueItems": True}, {"type": "object"}]},
        {"allOf": [{"dependentRequired": {"0": ["0"] * 30_000}}, {"type": "object"}]},
        {"allOf": [{"$ref": "#/" + "x/" * 30_000}, {"type": "object"}]},
        {"allOf": [{"$ref": "#named"}, {"type": "object"}], "$defs": {"n": {"$anchor": "named"}}},
        {"allOf": [{"$ref": "#/$defs/n"}, {"type": "object"}], "$defs": {"n": {"$id": "http://127.0.0.1/n"}}},
    ],
)
def test_what_costs_more_than_it_shows_is_not_checked(schema: dict[str, Any]) -> None:
    """None of these fits, and none is held against it."""
    rows = [[n, *range(50)] for n in range(100)]
    assert JsonShape(schemas=(schema,)).fits(json.dumps(rows))


def test_it_takes_no_more_than_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer steps the same check is given up."""
    shape = JsonShape(schemas=({"items": {"type": "integer"}},))
    text = "[" + ",".join(["1"] * 500) + ',"x"]'
    assert not shape.fits(text)
    monkeypatch.setattr(json_answers, "MOST_STEPS", 100)
    assert shape.fits(text)


def test_what_an_operator_writes_is_checked() -> None:
    json_answers.check_schema(PERSON)
    with pytest.raises(ValueError, match="this is no JSON schema"):
        json_answers.check_schema({"type": "colour"})
