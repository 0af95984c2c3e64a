"""What is to be seen from outside: the access log, statistics, traces."""

import pathlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import pytest

from extproc.mesh.access_log import SERVICE_FIELDS
from tests.helpers.gateways import Gateway, configuration
from tests.helpers.processes import wait_until
from tests.helpers.upstreams import EchoServer

SECRET = "hunter2"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def entry_of(gateway: Gateway, response: httpx.Response) -> dict[str, Any]:
    request_id = response.headers["x-request-id"]
    assert wait_until(lambda: any(entry["request_id"] == request_id for entry in gateway.log_entries()))
    return next(entry for entry in gateway.log_entries() if entry["request_id"] == request_id)


def test_the_access_log_carries_what_the_service_found(gateway: Gateway, client: httpx.Client) -> None:
    headers = {"authorization": SECRET, "x-api-key": SECRET, "x-test-path": "/upstreams/path"}
    response = client.post(f"/v1/chat/completions?key={SECRET}", headers=headers, content=SECRET)
    entry = entry_of(gateway, response)
    assert (entry["model"], entry["prompt_tokens"], entry["completion_tokens"]) == ("m", 7, 5)
    assert (entry["status"], entry["method"], entry["path"]) == (200, "POST", "/v1/chat/completions")
    assert entry["upstream_cluster"] in {"demo/a", "demo/b"}
    assert entry["upstream_host"].startswith("127.0.0.1:")
    assert entry["upstream_attempts"] == 1
    assert set(SERVICE_FIELDS) <= set(entry)
    assert entry["principal"] is None
    assert SECRET not in gateway.log.read_text()


def test_the_access_log_names_the_cluster_that_served(gateway: Gateway, client: httpx.Client) -> None:
    response = client.post("/v1/x", headers={"x-test-pool": "half-dead"}, json={})
    assert entry_of(gateway, response)["upstream_cluster"] == "half-dead/b"


def test_a_refusal_is_logged_with_its_reason_and_metadata(gateway: Gateway, client: httpx.Client) -> None:
    entry = entry_of(gateway, client.post("/v1/x", headers={"x-test-action": "refuse"}, json={}))
    assert (entry["status"], entry["details"], entry["model"]) == (401, "extproc.refused", "refused")


def test_statistics_are_labelled_by_cluster(gateway: Gateway, client: httpx.Client) -> None:
    client.post("/v1/x", headers={"x-test-pool": "solo"}, json={})
    assert 'envoy_cluster_upstream_rq_completed{envoy_cluster_name="solo/a"}' in gateway.admin("/stats/prometheus")


def test_tokens_are_in_envoys_own_statistics_per_cluster_and_model(gateway: Gateway, client: httpx.Client) -> None:
    def counted() -> list[int]:
        page = gateway.admin("/stats/prometheus")
        series = [rf'^envoy_extproc_{name}_tokens{{cluster="solo/a",model="m"}} (\d+)$' for name in ("input", "output")]
        return [sum(map(int, re.findall(one, page, re.MULTILINE))) for one in series]

    before = counted()
    for _ in range(2):
        client.post("/v1/x", headers={"x-test-pool": "solo"}, json={})
    client.post("/v1/x", headers={"x-test-action": "refuse"}, json={})
    assert wait_until(lambda: counted() == [before[0] + 14, before[1] + 10]), (before, counted())
    assert 'envoy_extproc_time_to_first_token_ms_count{cluster="solo/a",model="m"}' in gateway.admin(
        "/stats/prometheus"
    )
    assert 'model="refused"' not in gateway.admin("/stats/prometheus")


class Collector:
    """Takes OTLP over gRPC and keeps the bytes."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        method = grpc.unary_unary_rpc_method_handler(self._export)
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _export(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.received.append(request)
        return b""

    def close(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def traced_gateway(
    collector: Collector, upstreams: tuple[EchoServer, EchoServer], tmp_path: pathlib.Path
) -> Iterator[Gateway]:
    tracing = f'telemetry: {{tracing: {{otlp_grpc: "127.0.0.1:{collector.port}", sampling_percent: 0}}}}\n'
    running = Gateway(tmp_path, configuration(upstreams[0].port, upstreams[1].port) + tracing)
    yield running
    running.close()


def test_a_trace_is_continued_as_its_caller_decided(traced_gateway: Gateway, collector: Collector) -> None:
    url = f"http://127.0.0.1:{traced_gateway.port}/v1/x"
    parent = "b7ad6b7169203331"
    for sampled in ("01", "00"):
        sent = f"00-{TRACE_ID}-{parent}-{sampled}"
        response = httpx.post(url, headers={"traceparent": sent}, json={})
        version, trace_id, span_id, flags = dict(response.json()["headers"])["traceparent"].split("-")
        assert (version, trace_id, flags) == ("00", TRACE_ID, sampled)
        assert span_id != parent
    assert wait_until(lambda: any(bytes.fromhex(TRACE_ID) in spans for spans in collector.received), 15)


def test_a_request_without_a_trace_is_sampled_by_share(traced_gateway: Gateway) -> None:
    response = httpx.post(f"http://127.0.0.1:{traced_gateway.port}/v1/x", json={})
    assert dict(response.json()["headers"])["traceparent"].endswith("-00")


def test_the_documented_fields_of_the_access_log_are_those_it_has(gateway: Gateway, client: httpx.Client) -> None:
    entry = entry_of(gateway, client.post("/v1/x", json={}))
    page = (pathlib.Path(__file__).parents[3] / "docs" / "envoy.md").read_text()
    undocumented = {
        name for name in entry if f"`{name}`" not in page and not name.endswith(("_ms", "_sent", "_received"))
    }
    assert undocumented == set()
