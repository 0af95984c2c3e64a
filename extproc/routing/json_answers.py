"""Whether a text is JSON, and fits a schema. Pure.

Schemas and texts come from clients, who could write some that take for ever. So a check has a budget of steps, regular
expressions are not run, and nothing is fetched. A schema that can't be checked like that asks for no more than JSON.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sized
from contextvars import ContextVar
from typing import Any

import msgspec
from msgspec import Struct

MOST_STEPS = 20_000
"""Of one check. A step is a keyword of a schema at one place of a text, or an item that it looks at, at whatever depth.
A schema of more items than that is not checked."""

# A regular expression, or keywords whose work the library does where nobody counts it.
_UNCHECKED = frozenset({"pattern", "patternProperties", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef"})
# What compares or walks all of its own value, and of what it is held against: its top is no measure of its work.
_DEEP = frozenset({"const", "enum", "uniqueItems", "dependentRequired", "$ref"})
_CHARS_PER_STEP = 256  # an error repeats the text
_CHARS_PER_STEP_OF_REF = 2  # the shortest step of a pointer
_decode = msgspec.json.decode

Keyword = Callable[[Any, Any, Any, Any], Any]


class JsonShape(Struct, frozen=True):
    """What an answer has to be: JSON, perhaps an object, perhaps one that fits schemas."""

    is_object: bool = False
    schemas: tuple[Mapping[str, Any], ...] = ()

    def is_met(self, text: str) -> bool:
        """It can be read, and is an object where it has to be."""
        try:
            value = _decode(text)
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) or not self.is_object

    def fits(self, text: str) -> bool:
        """A text that is JSON fits the schemas; one that nobody can check fits."""
        return all(_fits(_decode(text), len(text), schema) for schema in self.schemas)


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises ValueError for what is no JSON schema."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"this is no JSON schema: {error.message[:200]}") from None


class _OutOfSteps(Exception):
    """The budget is spent."""


class _Steps(Struct):
    left: int
    per_error: int

    def take(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise _OutOfSteps


_steps: ContextVar[_Steps] = ContextVar("steps")


def _fits(value: Any, size_chars: int, schema: Mapping[str, Any]) -> bool:
    from referencing import Registry

    token = _steps.set(_Steps(MOST_STEPS, 1 + size_chars // _CHARS_PER_STEP))
    try:
        _steps.get().take(_deep_size(schema, MOST_STEPS))
        if _names_parts(schema):
            return True
        # An empty registry: a reference out of the schema is not followed.
        return bool(_validator()(schema, registry=Registry()).is_valid(value))
    except Exception:  # a client's schema: whatever the library trips over, it can't be checked
        return True
    finally:
        _steps.reset(token)


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    keywords: dict[str, Any] = dict(Draft202012Validator.VALIDATORS)
    return extend(Draft202012Validator, {name: _counted(name, keyword) for name, keyword in keywords.items()})


def _counted(name: str, keyword: Keyword) -> Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if name in _UNCHECKED or (name == "additionalProperties" and "patternProperties" in schema):
            return
        steps = _steps.get()
        steps.take(_work(name, value, instance, steps.left))
        for error in keyword(validator, value, instance, schema) or ():
            steps.take(steps.per_error)
            yield error

    return check


def _work(name: str, value: Any, instance: Any, most: int) -> int:
    """No fewer steps than the keyword itself takes; those of schemas in it are counted when it comes to them."""
    if name not in _DEEP:
        return 1 + _size(value) + _size(instance)
    if name == "$ref":
        # Any other is looked for in the whole schema, each time.
        if value != "#" and not value.startswith("#/"):
            raise _OutOfSteps
        return 1 + len(value) // _CHARS_PER_STEP_OF_REF
    both = _deep_size(value, most) + _deep_size(instance, most)
    return both * max(1, _size(instance)) if name == "uniqueItems" else both


def _deep_size(value: Any, most: int) -> int:
    """How many items there are in it, at every depth, and long texts as several; or some number above `most`."""
    size, open_ = 0, [value]
    while open_ and size <= most:
        one = open_.pop()
        size += 1
        if isinstance(one, str):
            size += len(one) // _CHARS_PER_STEP
        elif isinstance(one, Mapping):
            size += sum(len(name) for name in one) // _CHARS_PER_STEP
            open_ += one.values()
        elif isinstance(one, list):
            open_ += one
    return size


def _names_parts(schema: Mapping[str, Any]) -> bool:
    """Whether a part of it has an address of its own: references are then looked for in all of it, each time."""
    open_: list[Any] = list(schema.values())
    while open_:
        one = open_.pop()
        if isinstance(one, Mapping):
            if isinstance(one.get("$id"), str):
                return True
            open_ += one.values()
        elif isinstance(one, list):
            open_ += one
    return False


def _size(value: Any) -> int:
    return len(value) if isinstance(value, Sized) and not isinstance(value, str) else 1
