"""The sample data beside the checkout (recorded exchanges, token vectors); tests skip without it."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

_FOLDER = pathlib.Path(__file__).parents[3] / "shared" / "data"


def path(name: str) -> pathlib.Path:
    """A file of the sample data; skips the test if this checkout has none."""
    found = _FOLDER / name
    if not found.exists():
        pytest.skip(f"the sample data ../shared/data/{name} is not here")
    return found


@dataclass(frozen=True)
class Recording:
    """One recorded request and its answer."""

    name: str
    url_path: str
    request: bytes
    status: int
    content_type: str
    answer: bytes


def recordings() -> list[Recording]:
    """Every recorded exchange with OpenAI; empty without the sample data."""
    files = sorted((_FOLDER / "openai_exchanges").glob("*.yaml"))
    return [
        _recording(file.stem, interaction)
        for file in files
        for interaction in yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["interactions"]
    ]


def _recording(name: str, interaction: dict[str, Any]) -> Recording:
    request, response = interaction["request"], interaction["response"]
    return Recording(
        name,
        "/v1/" + request["url"].split("/v1/")[1],
        request["body"].encode(),
        response["code"],
        response["headers"]["Content-Type"][0],
        response["body"].encode(),
    )
