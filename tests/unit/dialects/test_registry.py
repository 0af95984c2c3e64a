"""Paths and methods -> client APIs; error shapes; the list of models."""

from __future__ import annotations

import json

import pytest

from extproc.config.pools import CARRIES
from extproc.dialects import kserve_api, openai_api
from extproc.dialects.interface import ClientApi, RequestHead, Route
from extproc.dialects.registry import error_body, model_body, models_body, pool_dialect, resolve
from extproc.rejection import model_not_found


def route(path: str, method: str = "POST") -> Route:
    return resolve(RequestHead(method, path, {}))


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/chat/completions", openai_api.CHAT),
        ("/v1/chat/completions/", openai_api.CHAT),
        ("/v1/chat/completions?api-version=1", openai_api.CHAT),
        ("/v1/completions", openai_api.COMPLETIONS),
        ("/v1/embeddings", openai_api.EMBEDDINGS),
        ("/v2/models/minilm/infer", kserve_api.INFER),
        ("/v2/models/minilm/versions/12/infer", kserve_api.INFER),
    ],
)
def test_apis(path: str, api: ClientApi) -> None:
    assert route(path) == Route(api=api)


def test_models() -> None:
    assert route("/v1/models", "GET") == Route(lists_models=True)
    assert route("/v1/models/demo-llm", "GET").model_id == "demo-llm"
    assert route("/v1/models/org/model", "GET").model_id == "org/model"
    assert route("/v1/models/org%2Fmodel?x", "GET").model_id == "org/model"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/v1",
        "/v1/chat/completions//",
        "/v1//chat/completions",
        "/V1/chat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/../v1/chat/completions",
        "/v1/chat/completions;x",
        "/v2/models/m/versions/x/infer",
        "/v2/models/m/versions/1/../2/infer",
        "/v2/models//infer",
        "/v2/models/a/b/infer",
        "/v2/health/ready",
        "http://elsewhere/v1/chat/completions",
    ],
)
def test_other_paths_are_unknown(path: str) -> None:
    rejection = route(path).rejection
    assert rejection is not None
    assert (rejection.status, rejection.code) == (404, "unknown_url")


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/v1/chat/completions", "GET", "POST"),
        ("/v1/models", "POST", "GET"),
        ("/v1/models/m", "DELETE", "GET"),
        ("/v2/models/m/infer", "OPTIONS", "POST"),
    ],
)
def test_other_methods_are_refused_naming_the_right_one(path: str, method: str, allowed: str) -> None:
    rejection = route(path, method).rejection
    assert rejection is not None
    assert rejection.status == 405
    assert ("allow", allowed) in rejection.headers


def test_errors_have_the_shape_of_the_api() -> None:
    rejection = model_not_found("m")
    openai_shape = {
        "error": {
            "message": rejection.message,
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
    kserve_shape = {"error": rejection.message}
    assert json.loads(error_body(openai_api.CHAT, rejection)) == openai_shape
    assert json.loads(error_body(RequestHead("GET", "/nowhere", {}), rejection)) == openai_shape
    assert json.loads(error_body(kserve_api.INFER, rejection)) == kserve_shape
    assert json.loads(error_body(RequestHead("GET", "/v2/nowhere?x", {}), rejection)) == kserve_shape


def test_unprintable_paths_are_not_repeated() -> None:
    rejection = route("/\x1b[31m" + "x" * 10_000).rejection
    assert rejection is not None
    assert "\x1b" not in rejection.message
    assert len(rejection.message) < 300


def test_lists_of_models() -> None:
    model = {"id": "demo", "object": "model", "created": 5, "owned_by": "extproc"}
    assert json.loads(models_body([("demo", 5)])) == {"object": "list", "data": [model]}
    assert json.loads(model_body("demo", 5)) == model


def test_the_configuration_knows_what_each_dialect_carries() -> None:
    for name, operations in CARRIES.items():
        assert sorted(map(str, operations)) == sorted(map(str, pool_dialect(name).operations))


def test_dialects_have_names() -> None:
    assert {name: sorted(pool_dialect(name).operations) for name in ("openai", "triton-generate", "kserve")} == {
        "openai": ["chat", "completions", "embeddings"],
        "triton-generate": ["chat", "completions"],
        "kserve": ["embeddings", "infer"],
    }
    with pytest.raises(KeyError):
        pool_dialect("telepathy")
