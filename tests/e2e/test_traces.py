"""Traces through real Envoy, received by a collector in a process of its own: whose child a span is, and whether."""

import contextlib
import pathlib
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from extproc.config.model import GrpcServer
from tests.helpers import ports
from tests.helpers.collector import Collector
from tests.helpers.processes import wait_until
from tests.helpers.scripted_upstream import ScriptedUpstream, chat
from tests.helpers.services import ServedGateway, Upstreams, Worlds, on_both_servers, served

SECRET = f"confidential{uuid.uuid4().hex}"
CALL = "async envoy.service.ext_proc.v3.ExternalProcessor.Process egress"
_EXPORTED_S = 20.0

Spans = Sequence[Mapping[str, Any]]


@dataclass
class World:
    gateway: ServedGateway
    collector: Collector

    def ask(self, text: str = SECRET, model: str = "openai", sampled: bool | None = True, **more: Any) -> str:
        """The id of the trace that the request is part of; made by Envoy where `sampled` is None."""
        trace_id = uuid.uuid4().hex
        parent = {} if sampled is None else {"traceparent": f"00-{trace_id}-b7ad6b7169203331-0{int(sampled)}"}
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        with self.gateway.client() as client:
            self.last = client.post("/v1/chat/completions", json=body, headers=parent)
        return trace_id

    def spans(self, trace_id: str) -> Spans:
        """All of a trace, waited for: Envoy's last span and the service's own."""

        def all_there() -> bool:
            services = {span["service"] for span in self.collector.spans(trace_id)}
            names = {span["name"] for span in self.collector.spans(trace_id)}
            return services == {"extproc", "extproc-gateway"} and {CALL, "ingress"} <= names

        assert wait_until(all_there, _EXPORTED_S), self.collector.spans(trace_id)
        return self.collector.spans(trace_id)


@pytest.fixture(scope="module")
def _worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds[World]]:
    @contextlib.contextmanager
    def opened(server: GrpcServer) -> Iterator[World]:
        directory = tmp_path_factory.mktemp("traces")
        with contextlib.ExitStack() as running:
            upstream = running.enter_context(contextlib.closing(ScriptedUpstream()))
            upstream.script = chat
            collector = running.enter_context(contextlib.closing(Collector(directory, ports.free_base())))
            collector.start()
            tracing = f"telemetry: {{tracing: {{otlp_grpc: '127.0.0.1:{collector.port}', sampling_percent: 0}}}}\n"
            upstreams = Upstreams(openai=upstream.port)
            gateway = running.enter_context(served(directory / "g", upstreams, policies=tracing, server=server))
            # Envoy sends its spans every 5 s.
            admin = f"http://127.0.0.1:{gateway.admin_port}"
            httpx.post(f"{admin}/runtime_modify?tracing.opentelemetry.flush_interval_ms=200").raise_for_status()
            yield World(gateway, collector)

    with contextlib.closing(Worlds(opened)) as worlds:
        yield worlds


@pytest.fixture
def world(_worlds: Worlds[World], request: pytest.FixtureRequest) -> World:
    return _worlds.of(request)


def named(spans: Spans, name: str) -> Mapping[str, Any]:
    (span,) = [span for span in spans if span["name"] == name]
    return span


@on_both_servers
def test_the_services_span_is_a_child_of_envoys_call_and_policies_are_its_children(world: World) -> None:
    spans = world.spans(world.ask(SECRET + " and so on" * 900))
    assert world.last.status_code == 200
    ingress, call, own = named(spans, "ingress"), named(spans, CALL), named(spans, "chat openai")
    assert ingress["parent_id"] == "b7ad6b7169203331"
    assert call["parent_id"] == ingress["span_id"]
    assert own["parent_id"] == call["span_id"]
    assert own["kind"] == "SPAN_KIND_SERVER"
    assert len({span["span_id"] for span in spans}) == len(spans)
    policies = [span for span in spans if span["name"].startswith("policy ")]
    assert "policy count_tokens" in {span["name"] for span in policies}
    for span in policies:
        assert span["parent_id"] == own["span_id"]
        assert own["began_s"] <= span["began_s"] <= span["ended_s"] <= own["ended_s"]
    assert ingress["began_s"] - 0.05 <= own["began_s"] <= own["ended_s"] <= ingress["ended_s"] + 0.05


def test_attributes_are_those_of_the_genai_conventions_and_no_text(world: World) -> None:
    spans = world.spans(world.ask(max_tokens=50))
    attributes = named(spans, "chat openai")["attributes"]
    usage = world.last.json()["usage"]
    assert (
        attributes.items()
        >= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "triton",
            "gen_ai.request.model": "openai",
            "gen_ai.request.max_tokens": 50,
            "gen_ai.usage.input_tokens": usage["prompt_tokens"],
            "gen_ai.usage.output_tokens": usage["completion_tokens"],
            "http.response.status_code": 200,
            "extproc.pool": "openai",
            "extproc.termination": "completed",
            "extproc.request_id": world.last.headers["x-request-id"],
        }.items()
    )
    assert SECRET not in world.collector.file.read_text()


def test_what_envoy_does_not_sample_the_service_does_not_either(world: World) -> None:
    unsampled, begun_here = world.ask(sampled=False), world.ask(sampled=None)
    sampled = world.ask()
    world.spans(sampled)  # went with or after whatever there would be of the others
    assert world.collector.spans(unsampled) == []
    assert begun_here not in {span["trace_id"] for span in world.collector.spans()}
    own = [span for span in world.collector.spans() if span["service"] == "extproc"]
    parents = {span["span_id"] for span in world.collector.spans() if span["service"] == "extproc-gateway"}
    roots = [span for span in own if span["kind"] == "SPAN_KIND_SERVER"]
    assert {span["parent_id"] for span in roots} <= parents


def test_a_refusal_is_told_with_its_policy(world: World) -> None:
    spans = world.spans(world.ask(model="triton", n=2))
    assert world.last.status_code == 400
    refused = [span for span in spans if span["attributes"].get("extproc.verdict") == "reject"]
    assert [span["name"] for span in refused] == ["policy route"]
    own = named(spans, "chat triton")
    assert own["attributes"]["error.type"] == "invalid_request"
    assert not own["failed"]


def test_an_upstream_that_is_down_is_a_failure(world: World) -> None:
    spans = world.spans(world.ask(model="nobody"))
    assert named(spans, "chat nobody")["failed"]


def test_a_lost_collector_costs_no_request_and_what_it_misses_is_sent_later(world: World) -> None:
    world.collector.stop()
    trace_id = world.ask()
    assert world.last.status_code == 200
    world.collector.start()
    wanted = {"extproc"}
    assert wait_until(lambda: {span["service"] for span in world.collector.spans(trace_id)} >= wanted, _EXPORTED_S)


@on_both_servers
def test_sampled_requests_are_exemplars_of_their_buckets(world: World) -> None:
    trace_id = world.ask()
    world.spans(trace_id)
    admin = f"http://{world.gateway.config.service.admin}/metrics"
    page = httpx.get(admin, headers={"accept": "application/openmetrics-text"}).text
    exemplar = re.escape(f'# {{trace_id="{trace_id}"}}')
    marked = re.findall(rf"^(\w+)_bucket{{(.*)}} [\d.]+ {exemplar} ([\d.]+) ", page, re.MULTILINE)
    assert {name for name, _, _ in marked} == {
        "gen_ai_server_request_duration_seconds", "gen_ai_server_time_to_first_token_seconds",
    }  # fmt: skip
    assert all('gen_ai_request_model="openai"' in labels for _, labels, _ in marked)
    assert page.endswith("# EOF\n")
    assert "trace_id" not in httpx.get(admin).text


def test_spans_are_counted_by_what_became_of_them(world: World) -> None:
    world.spans(world.ask())
    assert world.gateway.books.metric("extproc_spans_total", outcome="exported") > 0
    page = pathlib.Path(world.gateway.service.log).read_text()
    assert SECRET not in page
