"""Nothing reaches a pool without the service's stamp, and nobody else's word passes for the gateway's own."""

import json

import httpx
import pytest

from tests.helpers.gateways import Gateway
from tests.helpers.http import exchange
from tests.helpers.upstreams import EchoServer

FORGERIES = [
    [("x-extproc-pool", "demo")],
    [("X-ExtProc-Pool", "demo")],
    [("x-extproc-pool", "nowhere"), ("x-extproc-pool", "demo")],
    [("x_extproc_pool", "demo")],
    [("x-extproc_pool", "demo")],
    [("x-kept-pool", "demo")],
    [("x-kept-priority", "demo")],
    [("x-extproc-priority", "demo"), ("x-gateway-destination-endpoint", "127.0.0.1:1")],
    [("x-envoy-original-path", "/"), ("x-envoy-retry-on", "5xx"), ("x-envoy-decorator-operation", "x")],
]


def seen_by_processor(response: httpx.Response) -> dict[str, list[str]]:
    seen: dict[str, list[str]] = json.loads(seen_by_upstream(response)["x-test-seen"])
    return seen


def seen_by_upstream(response: httpx.Response) -> dict[str, str]:
    return dict(response.json()["headers"])


@pytest.mark.parametrize("forged", FORGERIES)
@pytest.mark.parametrize(("method", "path", "body"), [
    ("POST", "/v1/chat/completions", b'{"a":1}'),
    ("POST", "/v1/chat/completions", b""),
    ("POST", "/unknown", b"x"),
    ("GET", "/v1/models", None),
    ("GET", "/", None),
])  # fmt: skip
def test_a_request_that_is_not_stamped_reaches_no_upstream(
    client: httpx.Client,
    upstreams: tuple[EchoServer, EchoServer],
    forged: list[tuple[str, str]],
    method: str,
    path: str,
    body: bytes | None,
) -> None:
    before = [upstream.requests for upstream in upstreams]
    response = client.request(method, path, content=body, headers=[("x-test-action", "ignore"), *forged])
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error"]["code"] == "unknown_url"
    assert [upstream.requests for upstream in upstreams] == before


def test_a_stamp_in_trailers_is_none(gateway: Gateway, upstreams: tuple[EchoServer, EchoServer]) -> None:
    before = [upstream.requests for upstream in upstreams]
    answer = exchange(
        gateway.port,
        b"POST /v1/x HTTP/1.1\r\nhost: a\r\nx-test-action: ignore\r\ntransfer-encoding: chunked\r\n"
        b"trailer: x-extproc-pool\r\n\r\n3\r\nabc\r\n0\r\nx-extproc-pool: demo\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert [upstream.requests for upstream in upstreams] == before


def test_the_stamp_chooses_the_pool_and_the_path(client: httpx.Client) -> None:
    headers = {"x-extproc-pool": "dead", "x-test-pool": "solo", "x-test-path": "/v2/models/m/generate"}
    response = client.post("/v1/chat/completions", headers=headers, json={"a": 1})
    assert response.status_code == 200
    assert response.json()["server"] == "a"
    assert response.json()["path"] == "/v2/models/m/generate"
    assert response.json()["body"] == '{"a":1}'


def test_of_all_our_headers_a_client_may_send_three(client: httpx.Client) -> None:
    allowed = [
        ("x-extproc-cache-namespace", "n"),
        ("X-Extproc-Cache-TTL", "60"),
        ("x-extproc-priority", "1"),
        ("x-extproc-priority", "0"),
    ]
    forged = [("x-extproc-pool", "dead"), ("x-extproc-model", "m"), ("x-extproc-", "e"), ("x-kept-priority", "9")]
    seen = seen_by_processor(client.post("/v1/x", headers=[*forged, *allowed], json={}))
    ours = {name: values for name, values in seen.items() if name.startswith(("x-extproc", "x-kept"))}
    # Sent twice, the first counts.
    assert ours == {
        "x-extproc-cache-namespace": ["n"],
        "x-extproc-cache-ttl": ["60"],
        "x-extproc-priority": ["1"],
    }


def test_headers_that_are_absent_or_empty_stay_so(client: httpx.Client) -> None:
    seen = seen_by_processor(client.post("/v1/x", headers={"x-extproc-priority": ""}, json={}))
    assert not [name for name in seen if name.startswith("x-extproc")]


def test_an_upstream_is_told_no_secret_and_nothing_of_ours(client: httpx.Client) -> None:
    headers = {"authorization": "Bearer k", "x-api-key": "k", "cookie": "k", "x-extproc-priority": "1"}
    seen = seen_by_upstream(client.post("/v1/x?key=value", headers=headers, json={}))
    secret_or_ours = {"authorization", "x-api-key", "cookie", "x-envoy-original-path"}
    assert not [name for name in seen if name in secret_or_ours or name.startswith("x-extproc")]
    assert seen["accept-encoding"] == "identity"
    assert seen["x-request-id"]


def test_an_upstream_can_not_speak_for_the_gateway(client: httpx.Client) -> None:
    response = client.post("/v1/x", json={})
    assert "x-extproc-pool" not in response.headers
    assert "x-ratelimit-limit-requests" not in response.headers
    assert response.headers["x-extproc-model"] == "m"  # the processor's own
    assert response.headers["server"] == "extproc"
    assert not [name for name in response.headers if name.startswith("x-envoy")]


def test_a_client_does_not_choose_its_request_id(client: httpx.Client) -> None:
    response = client.post("/v1/x", headers={"x-request-id": "mine"}, json={})
    assert response.headers["x-request-id"] == seen_by_upstream(response)["x-request-id"]
    assert response.headers["x-request-id"] != "mine"


def test_http2_is_served_alike(gateway: Gateway) -> None:
    with httpx.Client(http1=False, http2=True, base_url=f"http://127.0.0.1:{gateway.port}") as client:
        served = client.post("/v1/x", headers={"x-extproc-pool": "dead"}, json={"a": 1})
        assert (served.http_version, served.status_code) == ("HTTP/2", 200)
        assert client.post("/v1/x", headers={"x-test-action": "ignore"}, json={}).status_code == 404
