"""The request's sampling parameters, checked. Owns: which are honoured, ignored and refused."""

import json
from dataclasses import dataclass
from typing import Any


class BadParameter(ValueError):
    """A sampling parameter this model cannot honour; the message is for the caller."""


@dataclass(frozen=True)
class Sampling:
    max_tokens: int
    seed: int | None
    """None at temperature 0, where the text depends on the prompt alone."""
    stop: tuple[str, ...]
    ignore_eos: bool


def parse(document: str, default_max_tokens: int) -> Sampling:
    """`document` is a JSON object; names are vLLM's. Unknown names are ignored, as vLLM's backend does.

    Raises BadParameter.
    """
    try:
        given = json.loads(document)
    except ValueError as error:
        raise BadParameter(f"sampling_parameters is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise BadParameter("sampling_parameters must be a JSON object")
    for name in ("n", "best_of"):
        if _integer(given, name, 1) != 1:
            raise BadParameter(f"{name} must be 1: this model writes one answer per request")
    max_tokens = _integer(given, "max_tokens", default_max_tokens)
    if max_tokens < 1:
        raise BadParameter("max_tokens must be at least 1")
    temperature = _number(given, "temperature", 1.0)
    if not temperature >= 0:
        raise BadParameter("temperature must not be negative")
    if not 0 < _number(given, "top_p", 1.0) <= 1:
        raise BadParameter("top_p must be above 0 and at most 1")
    seed = _integer(given, "seed", 0) if temperature > 0 else None
    return Sampling(max_tokens, seed, _stop(given.get("stop")), _truth(given, "ignore_eos"))


def _number(given: dict[str, Any], name: str, default: float) -> float:
    """Clients of Triton often send numbers as text, so numbers in quotes are numbers too."""
    value = given.get(name)
    if value is None:
        return float(default)
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadParameter(f"{name} must be a number") from error


def _integer(given: dict[str, Any], name: str, default: int) -> int:
    number = _number(given, name, default)
    if not number.is_integer():
        raise BadParameter(f"{name} must be a whole number")
    return int(number)


def _truth(given: dict[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise BadParameter(f"{name} must be true or false")
    return value


def _stop(value: Any) -> tuple[str, ...]:
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise BadParameter("stop must be a string or a list of strings, none of them empty")
    return tuple(texts)
