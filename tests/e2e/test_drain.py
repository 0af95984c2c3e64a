"""`extproc serve` told to end: what it serves is finished, nothing new is begun, and it does end."""

import json
import os
import pathlib
import signal
from collections.abc import Iterator

import httpx
import pytest

from extproc.config.model import GrpcServer
from extproc.stack.stack import Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.processes import wait_until
from tests.helpers.stack import CONFIG, SERVER
from tests.helpers.usage import usage_of

# Longer than Envoy takes to find by its health checks that the service is on its way out.
ANSWER = "one more word " * 45 + "and an end"
SLOW = f"[[demo:echo]][[demo:tpot_ms=30]]{ANSWER}"
DRAIN_TIMEOUT_S = 30


@pytest.fixture(params=GrpcServer)
def server(request: pytest.FixtureRequest) -> dict[str, str]:
    """Which gRPC server the gateway has."""
    return {SERVER: request.param}


@pytest.fixture
def gateway(stack: Stack, server: dict[str, str], tmp_path: pathlib.Path) -> Iterator[GatewayBeside]:
    text = CONFIG.read_text()
    assert f"drain_timeout_s: {DRAIN_TIMEOUT_S}\n" in text
    gateway = GatewayBeside(stack, tmp_path, text, env=server)
    yield gateway
    gateway.close()


@pytest.fixture
def http(gateway: GatewayBeside, stack_key: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {stack_key}"}
    with httpx.Client(base_url=gateway.base_url, headers=headers, timeout=30.0) as client:
        yield client


def test_a_stream_in_flight_is_finished_and_nothing_new_is_begun(gateway: GatewayBeside, http: httpx.Client) -> None:
    assert gateway.service.pid is not None
    body = {"model": "demo-llm", "messages": [{"role": "user", "content": SLOW}]}
    with http.stream("POST", "/chat/completions", json={**body, "stream": True}) as answer:
        lines = answer.iter_lines()
        received = [next(lines)]
        os.kill(gateway.service.pid, signal.SIGTERM)
        assert wait_until(lambda: not gateway.ready())
        later: list[httpx.Response] = []  # what comes before the workers have heard of it is served
        assert wait_until(lambda: later.append(http.post("/models")) or later[-1].status_code == 503)
        refused = http.post("/chat/completions", json=body)
        assert gateway.service.running
        received += lines
    assert refused.status_code == 503
    error = refused.json()["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert error["code"] == "overloaded"
    assert refused.headers["retry-after"]
    *events, last = [line.removeprefix("data: ") for line in received if line]
    assert last == "[DONE]"
    assert "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events) == ANSWER
    assert wait_until(lambda: gateway.service.exit_code is not None, DRAIN_TIMEOUT_S)
    assert gateway.service.exit_code == 0
    assert usage_of(gateway.service.log, answer.headers["x-request-id"])["termination"] == "COMPLETED"
    assert "Traceback" not in gateway.service.log.read_text()


def test_without_streams_it_ends_at_once(gateway: GatewayBeside) -> None:
    assert gateway.service.pid is not None
    os.kill(gateway.service.pid, signal.SIGTERM)
    assert wait_until(lambda: gateway.service.exit_code is not None, DRAIN_TIMEOUT_S / 2)
    assert gateway.service.exit_code == 0


def test_a_stream_that_outlasts_the_drain_is_cut_off_and_on_record(
    stack: Stack, stack_key: str, server: dict[str, str], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "short").mkdir()
    text = CONFIG.read_text().replace(f"drain_timeout_s: {DRAIN_TIMEOUT_S}\n", "drain_timeout_s: 0.5\n")
    gateway = GatewayBeside(stack, tmp_path / "short", text, env=server)
    try:
        assert gateway.service.pid is not None
        headers = {"authorization": f"Bearer {stack_key}"}
        body = {"model": "demo-llm", "stream": True, "messages": [{"role": "user", "content": SLOW}]}
        with httpx.stream(
            "POST", f"{gateway.base_url}/chat/completions", json=body, headers=headers, timeout=30.0
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            os.kill(gateway.service.pid, signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
        assert wait_until(lambda: gateway.service.exit_code is not None, DRAIN_TIMEOUT_S / 2)
        event = usage_of(gateway.service.log, answer.headers["x-request-id"])
        assert event["termination"] == "CANCELLED"
        assert 0 < event["completion_tokens"] < len(ANSWER.split())
    finally:
        gateway.close()
