"""The admin API against its own OpenAPI document, by a fuzzer: nothing it is sent makes it fail or break its word."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.generation import GenerationMode

from tests.helpers.administered import administered
from tests.helpers.redis import RedisServer

DOCUMENT = json.loads((pathlib.Path(__file__).resolve().parents[3] / "docs" / "openapi.json").read_text())
OPERATIONS = {
    operation["operationId"]: (path, method)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if operation["operationId"] != "drain"  # after which there would be nobody to ask
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    with administered(tmp_path_factory.mktemp("service"), redis.url) as running:
        yield running.url
    redis.close()


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_it_keeps_its_word(url: str, name: str, mode: GenerationMode) -> None:
    path, method = OPERATIONS[name]
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method]
    asked = 0

    @hypothesis.settings(max_examples=40, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        nonlocal asked
        case.call_and_validate(base_url=url)
        asked += 1

    try:
        ask()
    except hypothesis.errors.Unsatisfiable:
        assert "requestBody" not in DOCUMENT["paths"][path][method]
        assert DOCUMENT["paths"][path][method]["parameters"] == []
        pytest.skip("it takes nothing that could be wrong")
    assert asked > 0
