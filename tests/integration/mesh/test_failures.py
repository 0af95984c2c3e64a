"""What clients see when the service or an upstream dies, hangs or comes back."""

import threading
import time

import httpx
import pytest

from tests.helpers.gateways import Gateway
from tests.helpers.processes import wait_until
from tests.helpers.upstreams import EchoServer

HANG_BOUND_S = 6.0


def post(gateway: Gateway, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"http://127.0.0.1:{gateway.port}/v1/x", headers=names, json={"a": 1}, timeout=20)


def read_stream(gateway: Gateway, outcome: list[str]) -> None:
    headers = {"x-test-upstream": "stream", "x-test-chunks": "500"}
    try:
        with httpx.stream("POST", f"http://127.0.0.1:{gateway.port}/v1/x", headers=headers, timeout=20) as response:
            outcome.append(str(response.status_code))
            for _ in response.iter_raw():
                pass
        outcome.append("complete")
    except httpx.HTTPError as error:
        outcome.append(type(error).__name__)


def begun_stream(gateway: Gateway) -> tuple[threading.Thread, list[str]]:
    outcome: list[str] = []
    thread = threading.Thread(target=read_stream, args=(gateway, outcome))
    thread.start()
    assert wait_until(lambda: outcome == ["200"])
    time.sleep(0.1)
    return thread, outcome


def test_a_killed_service_fails_closed_and_is_taken_back(
    own_gateway: Gateway, upstreams: tuple[EchoServer, EchoServer]
) -> None:
    thread, outcome = begun_stream(own_gateway)
    before = [upstream.requests for upstream in upstreams]
    own_gateway.processor.kill()
    thread.join(HANG_BOUND_S)
    assert outcome == ["200", "RemoteProtocolError"]  # the stream is broken off, not ended as if it were whole
    for _ in range(3):
        began_s = time.monotonic()
        response = post(own_gateway)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "overloaded"
        assert response.headers["retry-after"] == "1"
        assert time.monotonic() - began_s < 1
    assert [upstream.requests for upstream in upstreams] == before
    own_gateway.processor.start()
    assert wait_until(lambda: post(own_gateway).status_code == 200)


def test_a_hung_service_is_noticed_within_seconds(own_gateway: Gateway) -> None:
    thread, outcome = begun_stream(own_gateway)
    own_gateway.processor.pause()
    began_s = time.monotonic()
    assert post(own_gateway).status_code == 503
    assert time.monotonic() - began_s < HANG_BOUND_S
    thread.join(HANG_BOUND_S)
    assert outcome == ["200", "RemoteProtocolError"]
    # Once its health checks have failed nobody waits for it any more.
    assert wait_until(lambda: "/failed_active_hc" in own_gateway.admin("/clusters?filter=extproc"))
    assert wait_until(lambda: post(own_gateway).elapsed.total_seconds() < 0.5)
    own_gateway.processor.resume()
    assert wait_until(lambda: post(own_gateway).status_code == 200)


def test_open_sends_what_nobody_saw_to_the_default_pool(
    open_gateway: Gateway, upstreams: tuple[EchoServer, EchoServer]
) -> None:
    open_gateway.processor.kill()
    # A request whose body Envoy has begun to send to the service can't be taken back; that ends when nobody is
    # there to send it to.
    assert wait_until(lambda: "/failed_active_hc" in open_gateway.admin("/clusters?filter=extproc"))
    response = post(open_gateway, x_extproc_pool="demo", authorization="Bearer k")
    assert response.status_code == 200
    seen = response.json()
    assert (seen["server"], seen["path"], seen["body"]) == ("a", "/v1/x", '{"a":1}')
    assert "authorization" not in dict(seen["headers"])


def test_open_does_not_undo_a_refusal(open_gateway: Gateway) -> None:
    assert post(open_gateway, x_test_action="refuse").status_code == 401


def test_a_pools_other_cluster_takes_over(client: httpx.Client) -> None:
    for _ in range(20):
        response = client.post("/v1/x", headers={"x-test-pool": "half-dead"}, json={})
        assert (response.status_code, response.json()["server"]) == (200, "b")


def test_an_upstream_that_just_died_costs_no_request(own_gateway: Gateway) -> None:
    """Before any health check has noticed: the connection is refused, and another cluster is tried."""
    dying = EchoServer("dying")
    base = own_gateway.read(own_gateway.text)
    text = own_gateway.text.replace(str(base.pools["demo"].clusters["a"].endpoints[0].port), str(dying.port))
    own_gateway.change(text)
    assert wait_until(lambda: post(own_gateway).json().get("server") == "dying")
    dying.close()
    assert {post(own_gateway).json()["server"] for _ in range(10)} == {"b"}


def test_a_request_that_may_have_begun_is_not_sent_again(
    client: httpx.Client, upstreams: tuple[EchoServer, EchoServer]
) -> None:
    before = sum(upstream.requests for upstream in upstreams)
    assert client.post("/v1/x", headers={"x-test-upstream": "drop"}, json={}).status_code == 503
    assert sum(upstream.requests for upstream in upstreams) == before + 1


def test_a_refused_request_is_tried_on_the_other_cluster(
    client: httpx.Client, upstreams: tuple[EchoServer, EchoServer]
) -> None:
    before = [upstream.requests for upstream in upstreams]
    assert client.post("/v1/x", headers={"x-test-upstream": "503"}, json={}).status_code == 503
    tries = [upstream.requests - count for upstream, count in zip(upstreams, before, strict=True)]
    assert sum(tries) == 3
    assert min(tries) >= 1


def test_an_upstream_dying_mid_stream_breaks_the_stream_off(gateway: Gateway) -> None:
    with httpx.stream(
        "POST", f"http://127.0.0.1:{gateway.port}/v1/x", headers={"x-test-upstream": "die-mid-stream"}
    ) as response:
        if response.status_code == 502:  # it died before the service had passed its headers on
            return
        with pytest.raises(httpx.RemoteProtocolError):
            response.read()


def test_an_upstream_that_answers_but_always_fails_is_ejected(own_gateway: Gateway) -> None:
    own_gateway.change(own_gateway.text.replace("consecutive_5xx: 1000", "consecutive_5xx: 3, ejection_s: 60"))
    clusters = "cluster_manager.cds.update_success"
    assert wait_until(lambda: own_gateway.stat(clusters) > 1)
    time.sleep(0.5)  # until the changed clusters have been checked and replace the old ones
    for _ in range(20):
        post(own_gateway, x_test_upstream="500")
        post(own_gateway, x_test_upstream="500", x_test_pool="solo")
    ejected = own_gateway.admin("/clusters?filter=demo/[ab]$")
    assert "/failed_outlier_check" in ejected
    # The only endpoint of a pool stays: nothing else could serve.
    assert "/failed_outlier_check" not in own_gateway.admin("/clusters?filter=solo")


def test_a_large_request_is_passed_on_whole_and_tried_again_whole(
    gateway: Gateway, upstreams: tuple[EchoServer, EchoServer]
) -> None:
    body = b"x" * (5 * 1024 * 1024)
    url = f"http://127.0.0.1:{gateway.port}/v1/x"
    assert len(httpx.post(url, content=body, timeout=20).json()["body"]) == len(body)
    before = sum(upstream.requests for upstream in upstreams)
    assert httpx.post(url, content=body, headers={"x-test-upstream": "503"}, timeout=20).status_code == 503
    assert sum(upstream.requests for upstream in upstreams) == before + 3
