"""KServe inference: embeddings translated, tensors passed through, texts in them found and replaced."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http

from extproc.dialects import openai_api
from extproc.dialects.answer import AnswerEvent, Done, Embedding, Failed, Opaque, Usage
from extproc.dialects.interface import (
    AnswerIdentity,
    InferenceRequest,
    InvalidRequest,
    RequestHead,
    TextSegment,
    TokenTotals,
    UpstreamModel,
)
from extproc.dialects.kserve_api import HEADER_LENGTH, INFER
from extproc.dialects.registry import pool_dialect

KSERVE = pool_dialect("kserve")
MODEL = UpstreamModel("up/stream", 0)
PATH = "/v2/models/minilm/infer"


def embeddings(**fields: Any) -> InferenceRequest:
    return openai_api.EMBEDDINGS.parse(RequestHead("POST", "/", {}), json.dumps({"model": "m", **fields}).encode())


def infer(body: bytes, path: str = PATH, header_length: str | None = None) -> InferenceRequest:
    headers = {} if header_length is None else {HEADER_LENGTH: header_length}
    return INFER.parse(RequestHead("POST", path, headers), body)


def tensor(*data: Any, **more: Any) -> dict[str, Any]:
    return {"name": "TEXT", "shape": [len(data), 1], "datatype": "BYTES", "data": list(data), **more}


def pack(*elements: bytes) -> bytes:
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def binary_body(*elements: bytes) -> tuple[bytes, str]:
    packed = pack(*elements)
    given = {
        "name": "TEXT",
        "shape": [len(elements)],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(packed)},
    }
    header = json.dumps({"inputs": [given]}).encode()
    return header + packed, str(len(header))


def test_embeddings_are_one_batch() -> None:
    request = embeddings(input=["a", "b"], encoding_format="base64", user="u")
    assert KSERVE.check(request) is None
    call = KSERVE.encode(request, MODEL)
    assert call.path == "/v2/models/up%2Fstream/infer"
    assert json.loads(call.body or b"") == {
        "inputs": [{"name": "TEXT", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]}]
    }


@pytest.mark.parametrize(
    ("fields", "param"), [({"input": "a", "dimensions": 8}, "dimensions"), ({"input": [1, 2]}, "input")]
)
def test_embeddings_that_cannot_be_carried(fields: dict[str, Any], param: str) -> None:
    rejection = KSERVE.check(embeddings(**fields))
    assert rejection is not None
    assert (rejection.status, rejection.param) == (400, param)


def test_chats_are_refused() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
    assert KSERVE.check(openai_api.CHAT.parse(RequestHead("POST", "/", {}), body)) is not None


def decode(request: InferenceRequest, body: bytes, status: int = 200) -> list[AnswerEvent]:
    decoder = KSERVE.decoder(request, status, "application/json")
    return [*decoder.feed(body[:5]), *decoder.feed(body[5:]), *decoder.finish()]


def answer(data: list[Any], shape: list[int], tokens: list[int] | None = None) -> bytes:
    outputs = [{"name": "EMBEDDING", "datatype": "FP32", "shape": shape, "data": data}]
    if tokens is not None:
        outputs.append({"name": "NUM_TOKENS", "datatype": "INT32", "shape": [len(tokens), 1], "data": tokens})
    return json.dumps({"model_name": "m", "outputs": outputs}).encode()


def test_embeddings_come_back_row_by_row() -> None:
    events = decode(embeddings(input=["a", "b"]), answer([1, 2.5, -3, 4], [2, 2], [4, 8]))
    assert events == [Embedding(0, [1.0, 2.5]), Embedding(1, [-3.0, 4.0]), Usage(12, 0), Done()]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"",
        answer([1, 2], [1, 2]),
        answer([1, 2], [2, 2]),
        answer([1, "a"], [2, 1]),
        answer([], [2, 0]),
        b'{"error":"it broke"}',
    ],
)
def test_answers_that_do_not_fit_the_request_have_failed(body: bytes) -> None:
    assert [type(event) for event in decode(embeddings(input=["a", "b"]), body)] == [Failed]


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "TEXT has 602 tokens, the limit is 512", 400),
        (400, "[request id: <id_unknown>] inference request batch-size must be <= 32 for 'minilm'", 400),
        (400, "it broke", 502),
        (404, "Request for unknown model: 'x' is not found", 503),
        (500, "it broke", 502),
    ],
)
def test_only_what_the_client_can_mend_is_its_fault(status: int, message: str, expected: int) -> None:
    (failure,) = decode(embeddings(input="a"), json.dumps({"error": message}).encode(), status)
    assert isinstance(failure, Failed)
    assert (failure.rejection.status, failure.rejection.message) == (expected, message)


def test_a_version_that_is_not_there_is_the_clients_fault_if_it_asked_for_it() -> None:
    content = json.dumps({"error": "Request for unknown model: 'up/stream' version 3 is not found"}).encode()
    for path, status in (("/v2/models/mini/versions/3/infer", 404), ("/v2/models/mini/infer", 503)):
        request = infer(json.dumps({"inputs": [tensor("a")]}).encode(), path)
        (failure,) = decode(request, content, 404)
        assert isinstance(failure, Failed)
        assert failure.rejection.status == status


def test_inference_keeps_its_version_and_gets_the_upstreams_name() -> None:
    body = json.dumps({"id": "1", "inputs": [tensor("a")], "outputs": [{"name": "E"}], "parameters": {"x": 1}}).encode()
    request = infer(body, "/v2/models/org%2Fmini/versions/3/infer?x=1")
    assert request.model == "org/mini"
    assert KSERVE.check(request) is None
    call = KSERVE.encode(request, MODEL)
    assert call.path == "/v2/models/up%2Fstream/versions/3/infer"
    assert json.loads(call.body or b"") == json.loads(body)


def test_texts_of_json_tensors() -> None:
    other = {"name": "N", "shape": [2], "datatype": "FP32", "data": [1.50, 2e3]}
    request = infer(json.dumps({"inputs": [other, tensor("a", ["b", "c"])]}).encode())
    assert [segment.text for segment in request.texts()] == ["a", "b", "c"]
    request.replace_texts([TextSegment("input", "B", request.texts()[1].locator)])
    sent = json.loads(KSERVE.encode(request, MODEL).body or b"")
    assert sent["inputs"][0] == other
    assert sent["inputs"][1]["data"] == ["a", "B", "c"]


def test_texts_of_binary_tensors() -> None:
    body, length = binary_body(b"a", "é".encode(), b"\xff\x00")
    request = infer(body, header_length=length)
    assert [segment.text for segment in request.texts()] == ["a", "é"]
    call = KSERVE.encode(request, MODEL)
    assert (call.body or b"").endswith(pack(b"a", "é".encode(), b"\xff\x00"))
    request.replace_texts([TextSegment("input", "longer", request.texts()[0].locator)])
    call = KSERVE.encode(request, MODEL)
    header_bytes = int(dict(call.set_headers)[HEADER_LENGTH])
    sent = call.body or b""
    packed = pack(b"longer", "é".encode(), b"\xff\x00")
    assert json.loads(sent[:header_bytes])["inputs"][0]["parameters"] == {"binary_data_size": len(packed)}
    assert sent[header_bytes:] == packed


def test_of_a_key_given_twice_only_the_last_goes_upstream() -> None:
    twice = b'{"inputs":[],"inputs":[{"name":"T","shape":[1],"datatype":"BYTES","data":["x"],"data":["y"]}]}'
    request = infer(twice)
    assert [segment.text for segment in request.texts()] == ["y"]
    assert b'"x"' not in (KSERVE.encode(request, MODEL).body or b"")


@pytest.mark.parametrize("binary", [True, False])
def test_what_tritons_own_client_sends(binary: bool) -> None:
    given = tritonclient.http.InferInput("TEXT", [2, 1], "BYTES")
    given.set_data_from_numpy(np.array([["hello"], ["wörld"]], dtype=np.object_), binary_data=binary)
    mask = tritonclient.http.InferInput("MASK", [2], "INT64")
    mask.set_data_from_numpy(np.array([1, 0]), binary_data=binary)
    body, length = tritonclient.http.InferenceServerClient.generate_request_body([given, mask])
    request = infer(body, header_length=None if length is None else str(length))
    assert [segment.text for segment in request.texts()] == ["hello", "wörld"]
    call = KSERVE.encode(request, MODEL)
    header_bytes = int(dict(call.set_headers).get(HEADER_LENGTH, len(call.body or b"")))
    assert (call.body or b"")[header_bytes:] == (body[length:] if length else b"")
    assert json.loads((call.body or b"")[:header_bytes]) == json.loads(body[:length])


@pytest.mark.parametrize(
    ("body", "header_length"),
    [
        (b"", None),
        (b"[]", None),
        (b"{}", None),
        (b"\xff", None),
        (b'{"inputs":[]}', None),
        (b'{"inputs":{}}', None),
        (b'{"inputs":[{"name":"T"}]}', None),
        (json.dumps({"inputs": [tensor(1)]}).encode(), None),
        (json.dumps({"inputs": [tensor({"a": 1})]}).encode(), None),
        (b'{"inputs":' + b"[" * 100_000, None),
        (b'{"inputs":[{"name":"T","shape":[1],"datatype":"BYTES","data":' + b"[" * 500 + b"]" * 500 + b"}]}", None),
        (b"{}", "3"),
        (b"{}", "-1"),
        (b"{}", "x"),
        (b"{}", "9" * 30),
        (binary_body(b"a")[0] + b"more", binary_body(b"a")[1]),
        (binary_body(b"a")[0][:-1], binary_body(b"a")[1]),
        (json.dumps({"inputs": [{**tensor(), "parameters": {"binary_data_size": 5}}]}).encode(), None),
        (json.dumps({"inputs": [tensor("a", parameters={"binary_data_size": 0})]}).encode(), None),
    ],
)
def test_wrong_inference_requests_are_refused(body: bytes, header_length: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        infer(body, header_length=header_length)
    assert caught.value.rejection.status == 400


def test_elements_must_fit_their_tensor() -> None:
    packed = b"\xff\xff\xff\xffa"
    header = json.dumps(
        {"inputs": [{"name": "T", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}]}
    ).encode()
    with pytest.raises(InvalidRequest):
        infer(header + packed, header_length=str(len(header)))


def test_answers_of_inference_pass_unread() -> None:
    request = infer(json.dumps({"inputs": [tensor("a")]}).encode())
    body = b'{"outputs":[]}\x00\x01binary'
    events = decode(request, body)
    assert [type(event) for event in events] == [Opaque, Opaque, Done]
    encoder = INFER.encoder(request, AnswerIdentity("1", 1, "m"), TokenTotals())
    assert encoder.content_type is None
    assert encoder.encode(events) == body


def test_errors_of_inference_have_tritons_shape() -> None:
    request = infer(json.dumps({"inputs": [tensor("a")]}).encode())
    events = decode(request, b'{"error":"unexpected shape for input"}', 400)
    encoder = INFER.encoder(request, AnswerIdentity("1", 1, "m"), TokenTotals())
    assert json.loads(encoder.encode(events)) == {"error": "unexpected shape for input"}
    assert isinstance(events[0], Failed)
    assert events[0].rejection.status == 400
