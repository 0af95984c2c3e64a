"""KServe's health of a server is Envoy's to tell: it needs no key, no service and no upstream."""

import httpx
import pytest

from tests.helpers.gateways import Gateway
from tests.helpers.processes import wait_until
from tests.helpers.upstreams import EchoServer


def ask(gateway: Gateway, question: str, method: str = "GET") -> httpx.Response:
    return httpx.request(method, f"http://127.0.0.1:{gateway.port}/v2/health/{question}", timeout=10)


def test_live_is_envoy_and_ready_is_a_worker(own_gateway: Gateway, upstreams: tuple[EchoServer, EchoServer]) -> None:
    before = [upstream.requests for upstream in upstreams]
    assert [ask(own_gateway, question).status_code for question in ("live", "ready")] == [200, 200]
    own_gateway.processor.kill()
    assert wait_until(lambda: ask(own_gateway, "ready").status_code == 503)
    refused = ask(own_gateway, "ready")
    assert refused.json()["error"]["code"] == "overloaded"
    assert refused.headers["retry-after"] == "1"
    assert ask(own_gateway, "live").status_code == 200
    own_gateway.processor.start()
    assert wait_until(lambda: ask(own_gateway, "ready").status_code == 200)
    assert [upstream.requests for upstream in upstreams] == before


def test_a_draining_envoy_is_live_but_not_ready(own_gateway: Gateway) -> None:
    own_gateway.admin("/healthcheck/fail", "POST")
    assert [ask(own_gateway, question).status_code for question in ("live", "ready")] == [200, 503]


@pytest.mark.parametrize("question", ["ready/", "ready?x=1", "ready/?x=1"])
def test_the_path_may_have_a_slash_and_a_query(gateway: Gateway, question: str) -> None:
    answer = ask(gateway, question)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["x-request-id"]
    assert answer.headers["server"] == "extproc"


@pytest.mark.parametrize(("question", "method"), [("ready", "POST"), ("readyx", "GET"), ("ready/x", "GET")])
def test_anything_else_is_for_the_service(gateway: Gateway, question: str, method: str) -> None:
    answer = ask(gateway, question, method)
    assert answer.json()["path"] == f"/v2/health/{question}"  # the test processor lets everything pass
