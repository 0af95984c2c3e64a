"""Envoy's own errors are OpenAI's, all four keys, and the service's pass as they are."""

import re
from typing import Any

import httpx
import pytest

from tests.helpers.gateways import Gateway
from tests.helpers.http import body_of, exchange
from tests.helpers.processes import wait_until
from tests.helpers.processors import REFUSAL

POST = b"POST /v1/x HTTP/1.1\r\nhost: a\r\n"
MALFORMED = {
    "no HTTP": (b"nonsense\r\n\r\n", 400, "invalid_request"),
    "a header without a colon": (b"GET / HTTP/1.1\r\nhost: a\r\nnonsense\r\n\r\n", 400, "invalid_request"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid_request"),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 426, "upgrade_required"),
    "two framings": (
        POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "invalid_request",
    ),
    "two lengths": (POST + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400, "invalid_request"),
    "a negative length": (POST + b"content-length: -3\r\n\r\n", 400, "invalid_request"),
    "less body than promised": (POST + b"content-length: 30\r\n\r\nabc", 408, "request_timeout"),
    "headers that never end": (POST, 408, "request_timeout"),
    "a huge header": (POST + b"a: " + b"x" * 70_000 + b"\r\n\r\n", 431, "request_headers_too_large"),
    "many headers": (
        POST + b"".join(b"a%d: x\r\n" % n for n in range(150)) + b"\r\n",
        431,
        "request_headers_too_large",
    ),
    "an upgrade": (
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        403,
        "invalid_request",
    ),
    "an escaped slash": (b"GET /a%2fb HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request"),
}


def assert_openai(body: Any, status: int, code: str) -> None:
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code
    assert body["error"]["type"] == ("invalid_request_error" if status < 500 else "server_error")
    assert body["error"]["message"]


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_not_a_proper_request_is_refused(gateway: Gateway, name: str) -> None:
    request, status, code = MALFORMED[name]
    answer = exchange(gateway.port, request)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\ncontent-type: application/json\r\n" in answer
    assert_openai(body_of(answer), status, code)
    (request_id,) = re.findall(rb"\r\nx-request-id: ([0-9a-f-]{36})\r\n", answer)
    assert wait_until(lambda: logged(gateway, request_id.decode()) == [status])


def logged(gateway: Gateway, request_id: str) -> list[int]:
    return [entry["status"] for entry in gateway.log_entries() if entry["request_id"] == request_id]


def test_paths_are_normalised_before_anyone_sees_them(client: httpx.Client, gateway: Gateway) -> None:
    answer = exchange(gateway.port, b"GET /v1/../../x//y HTTP/1.1\r\nhost: a\r\n\r\n")
    assert body_of(answer)["path"] == "/x/y"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"x-test-pool": "dead"}, 503, "upstream_unavailable"),
        ({"x-test-upstream": "drop"}, 503, "upstream_unavailable"),
        ({"x-test-upstream": "hang"}, 504, "timeout"),
        ({"x-test-action": "abort"}, 503, "overloaded"),
    ],
)
def test_failures_behind_the_gateway(client: httpx.Client, headers: dict[str, str], status: int, code: str) -> None:
    response = client.post("/v1/x", headers=headers, json={})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert_openai(response.json(), status, code)
    assert ("retry-after" in response.headers) == (status == 503)


@pytest.mark.parametrize("action", ["refuse", "refuse-without-details", "refuse-sse"])
def test_the_services_refusals_pass_as_they_are(client: httpx.Client, action: str) -> None:
    response = client.post("/v1/x", headers={"x-test-action": action}, json={})
    assert response.status_code == 401
    assert response.text == REFUSAL
    kind = "text/event-stream" if action == "refuse-sse" else "application/json"
    assert response.headers["content-type"] == kind
    assert response.headers["x-extproc-model"] == "m"
    assert response.headers["x-request-id"]


def test_the_service_may_answer_with_a_stream(client: httpx.Client) -> None:
    response = client.post("/v1/x", headers={"x-test-action": "stream"}, json={})
    assert response.text == "data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
    assert response.headers["x-extproc-model"] == "m"


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_an_upstreams_own_errors_are_left_to_the_service(client: httpx.Client, status: int) -> None:
    response = client.post("/v1/x", headers={"x-test-upstream": str(status)}, json={})
    assert (response.status_code, response.json()) == (status, {"status": str(status)})
