"""KServe's questions about a model: their paths, what the pool is asked, and what comes back."""

from __future__ import annotations

import json

import pytest

from extproc.dialects.answer import Done, Failed, Opaque
from extproc.dialects.interface import InferenceRequest, InvalidRequest, RequestHead, UpstreamModel
from extproc.dialects.kserve_pool import KservePool
from extproc.dialects.kserve_queries import QUERY
from extproc.dialects.registry import pool_dialect, resolve
from extproc.operation import Operation

POOL = KservePool()
UPSTREAM = UpstreamModel("encoder v2", 0)


def query(path: str) -> InferenceRequest:
    head = RequestHead("GET", path, {})
    assert resolve(head).api is QUERY
    return QUERY.parse(head, b"")


@pytest.mark.parametrize(
    ("path", "upstream"),
    [
        ("/v2/models/minilm", "/v2/models/encoder%20v2"),
        ("/v2/models/minilm/", "/v2/models/encoder%20v2"),
        ("/v2/models/minilm?x=1", "/v2/models/encoder%20v2"),
        ("/v2/models/minilm/ready", "/v2/models/encoder%20v2/ready"),
        ("/v2/models/minilm/versions/3", "/v2/models/encoder%20v2/versions/3"),
        ("/v2/models/minilm/versions/3/ready", "/v2/models/encoder%20v2/versions/3/ready"),
    ],
)
def test_the_pool_is_asked_by_its_own_name(path: str, upstream: str) -> None:
    request = query(path)
    assert (request.model, request.operation, list(request.texts())) == ("minilm", Operation.INFER, [])
    assert POOL.check(request) is None
    call = POOL.encode(request, UPSTREAM)
    assert (call.path, call.body) == (upstream, None)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models",
        "/v2/models/m/config",
        "/v2/models/m/stats",
        "/v2/models/m/trace/setting",
        "/v2/models/m/versions",
        "/v2/models/m/versions/x",
        "/v2/models/m/versions/1/config",
        "/v2/models/m/ready/ready",
        "/v2/models/stats/all",
        "/v2/repository/index",
        "/v2/health",
    ],
)
def test_other_paths_are_unknown(path: str) -> None:
    rejection = resolve(RequestHead("GET", path, {})).rejection
    assert rejection is not None
    assert rejection.status == 404


@pytest.mark.parametrize("path", ["/v2", "/v2/models/m", "/v2/models/m/ready"])
def test_questions_are_got(path: str) -> None:
    rejection = resolve(RequestHead("POST", path, {})).rejection
    assert rejection is not None
    assert rejection.status == 405


def test_a_question_has_no_body() -> None:
    with pytest.raises(InvalidRequest):
        QUERY.parse(RequestHead("GET", "/v2/models/m", {}), b"{}")


@pytest.mark.parametrize("name", ["openai", "triton-generate"])
def test_other_dialects_can_not_be_asked(name: str) -> None:
    assert pool_dialect(name).check(query("/v2/models/m")) is not None


def test_metadata_has_the_public_name_and_else_what_the_server_says() -> None:
    decoder = POOL.decoder(query("/v2/models/minilm"), 200, "application/json")
    told = {"name": "encoder v2", "versions": ["1"], "inputs": [{"name": "TEXT"}], "new in a later Triton": 1}
    body = json.dumps(told).encode()
    assert decoder.feed(body[:7]) + decoder.feed(body[7:]) == []
    opaque, done = decoder.finish()
    assert isinstance(opaque, Opaque)
    assert json.loads(opaque.raw) == told | {"name": "minilm"}
    assert isinstance(done, Done)


@pytest.mark.parametrize("body", [b"", b"[]", b"{"])
def test_metadata_that_cannot_be_read_has_failed(body: bytes) -> None:
    decoder = POOL.decoder(query("/v2/models/minilm"), 200, "application/json")
    decoder.feed(body)
    (event,) = decoder.finish()
    assert isinstance(event, Failed)


def test_ready_is_a_status_without_words() -> None:
    decoder = POOL.decoder(query("/v2/models/minilm/ready"), 200, "")
    assert [type(event) for event in decoder.finish()] == [Done]


def test_what_is_not_there_is_told() -> None:
    message = "Request for unknown model: 'encoder v2' version 7 is not found"
    decoder = POOL.decoder(query("/v2/models/minilm/versions/7"), 400, "application/json")
    decoder.feed(json.dumps({"error": message}).encode())
    (event,) = decoder.finish()
    assert isinstance(event, Failed)
    assert event.rejection.status == 404
    assert "version 7" in event.rejection.message
