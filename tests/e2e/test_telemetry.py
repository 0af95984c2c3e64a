"""What is said about requests: one usage event each, access log, metrics, headers; and what must never be said."""

import json
import pathlib
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google.protobuf import json_format

from extproc._pb.extproc.v1.usage_pb2 import UsageEvent
from extproc.policies.pipeline import POLICIES
from extproc.stack.stack import ENVOY, SERVICE, Stack
from tests.helpers.processes import wait_until
from tests.helpers.usage import Scrape, in_flight, log_lines, usage_events, usage_in

QUICK = "[[demo:ttft_ms=0]][[demo:tpot_ms=0]][[demo:tokens=12]]"
FLUSHED_S = 20.0


@pytest.fixture
def http(stack: Stack, stack_key: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {stack_key}"}
    with httpx.Client(base_url=f"http://{stack.config.gateway.listen}", headers=headers, timeout=30.0) as client:
        yield client


def chat(text: str = "Hi", **more: Any) -> dict[str, Any]:
    return {"model": "demo-llm", "messages": [{"role": "user", "content": f"{QUICK}{text}"}], **more}


def admin_port(stack: Stack) -> int:
    return stack.config.service.admin.port


def access_line(stack: Stack, request_id: str) -> dict[str, Any]:
    """Envoy's line about one request, waited for: it writes them in batches."""
    found: list[dict[str, Any]] = []

    def arrived() -> bool:
        found[:] = [line for line in log_lines(stack.process(ENVOY).log) if line.get("request_id") == request_id]
        return bool(found)

    assert wait_until(arrived, FLUSHED_S), f"no line for {request_id} in Envoy's access log"
    (line,) = found
    return line


# The usage event.


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_chat_is_recorded_alike_in_answer_usage_event_and_access_log(
    http: httpx.Client, stack: Stack, stream: bool
) -> None:
    before_s = time.time()
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    answer = http.post("/v1/chat/completions", json=chat(stream=stream, **options))
    whole = json.loads(answer.text.split("data: ")[-2]) if stream else answer.json()
    event = usage_in(stack, answer.headers["x-request-id"])
    assert event["operation"] == "chat"
    assert (event["model"], event["pool"], event["team"], event["tier"]) == ("demo-llm", "demo", "local", "enterprise")
    assert event["principal"].startswith("key-")
    assert (event["status"], event["termination"], event["reason"]) == (200, "COMPLETED", "")
    assert (event["stream"], event["upstream_usage"]) == (stream, True)
    assert before_s - 1 < event["time"] < time.time() + 1
    assert 0 < event["overhead_ms"] < event["ttft_ms"] <= event["duration_ms"]
    usage = whole["usage"]
    assert event["completion_tokens"] == usage["completion_tokens"] == 12
    assert event["prompt_tokens"] == usage["prompt_tokens"]
    line = access_line(stack, event["id"])
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert line["upstream_cluster"] in ("demo/triton-a", "demo/triton-b")
    same = ("principal", "team", "tier", "operation", "model", "pool", "prompt_tokens", "completion_tokens")
    assert {name: line[name] for name in same} == {name: event[name] for name in same}
    assert (line["termination"], line["ttft_ms"]) == (event["termination"], event["ttft_ms"])
    assert (round(line["price"] * 1e9), line["currency"]) == (event["price_nano"], event["currency"])
    assert event["price_nano"] > 0


def test_embeddings_are_recorded(http: httpx.Client, stack: Stack) -> None:
    answer = http.post("/v1/embeddings", json={"model": "minilm", "input": ["one", "two and three"]})
    event = usage_in(stack, answer.headers["x-request-id"])
    assert (event["operation"], event["pool"]) == ("embeddings", "encoder")
    assert event["prompt_tokens"] == answer.json()["usage"]["prompt_tokens"] > 0
    assert event["completion_tokens"] == 0


def test_a_refusal_is_recorded_with_its_reason(http: httpx.Client, stack: Stack) -> None:
    answer = http.post("/v1/chat/completions", json=chat(n=2))
    event = usage_in(stack, answer.headers["x-request-id"])
    assert (event["status"], event["termination"], event["reason"]) == (400, "REJECTED", "invalid_request")
    assert event["completion_tokens"] == 0
    line = access_line(stack, event["id"])
    assert (line["status"], line["termination"], line["model"]) == (400, "REJECTED", "demo-llm")
    assert line["upstream_host"] is None


def test_a_client_that_leaves_is_recorded_with_what_it_got(http: httpx.Client, stack: Stack) -> None:
    body = {"model": "demo-llm", "stream": True, "messages": [{"role": "user", "content": "[[demo:tokens=900]]"}]}
    with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        chunks = answer.iter_text()
        for _ in range(4):
            next(chunks)
    event = usage_in(stack, answer.headers["x-request-id"])
    assert event["termination"] == "CANCELLED"
    assert 3 <= event["completion_tokens"] < 900
    assert wait_until(lambda: in_flight(admin_port(stack)) == 0)


def test_every_event_is_one_of_its_proto_and_there_is_one_for_each_request(http: httpx.Client, stack: Stack) -> None:
    answers = [
        http.post("/v1/chat/completions", json=chat()),
        http.post("/v1/completions", json={"model": "demo-llm", "prompt": QUICK}),
        http.post("/v1/embeddings", json={"model": "minilm", "input": "x"}),
        http.get("/v1/models"),
        http.get("/v1/nothing"),
        http.post("/v1/chat/completions", content=b"not json"),
        http.post("/v1/chat/completions", json=chat(), headers={"authorization": "Bearer wrong"}),
    ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    for request_id in ids:
        usage_in(stack, request_id)
    events = usage_events(stack.process(SERVICE).log)
    for event in events:
        fields = {name: value for name, value in event.items() if name != "message"}
        json_format.ParseDict(fields, UsageEvent(), ignore_unknown_fields=False)
    counted = Counter(event["id"] for event in events)
    assert set(counted.values()) == {1}
    assert len(set(ids)) == len(ids)
    assert set(ids) <= counted.keys()


# Headers.


def test_headers_of_an_answer(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", json=chat(), headers={"x-request-id": "forged", "x-extproc-pool": "x"})
    assert str(uuid.UUID(answer.headers["x-request-id"])) == answer.headers["x-request-id"]
    assert answer.headers["x-extproc-model"] == "demo-llm"
    assert answer.headers["x-extproc-pool"] == "demo"
    assert re.fullmatch(r"\d+\.\d\d", answer.headers["x-extproc-overhead-ms"])
    assert {name for name in answer.headers if name.startswith("x-extproc-")} == {
        "x-extproc-model", "x-extproc-pool", "x-extproc-overhead-ms", "x-extproc-cache",
    }  # fmt: skip
    assert not [name for name in answer.headers if name.startswith("x-envoy")]


def test_a_trace_is_continued_into_the_access_log(http: httpx.Client, stack: Stack) -> None:
    trace = uuid.uuid4().hex
    answer = http.get("/v1/models", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert trace in access_line(stack, answer.headers["x-request-id"])["traceparent"]


# Metrics.


def test_metrics_count_what_happened(http: httpx.Client, stack: Stack) -> None:
    labels = {
        "gen_ai_operation_name": "chat",
        "gen_ai_request_model": "demo-llm",
        "gen_ai_provider_name": "triton",
    }
    assert wait_until(lambda: in_flight(admin_port(stack)) == 0)
    before = Scrape(admin_port(stack))
    http.post("/v1/chat/completions", json=chat(stream=True))
    http.post("/v1/chat/completions", json=chat(n=2))
    assert wait_until(lambda: in_flight(admin_port(stack)) == 0)
    after = Scrape(admin_port(stack))

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    tokens = "gen_ai_client_token_usage"
    assert grown(f"{tokens}_sum", gen_ai_token_type="output", **labels) == 12
    assert grown(f"{tokens}_count", gen_ai_token_type="output", **labels) == 1
    assert grown("gen_ai_server_request_duration_seconds_count", error_type="", **labels) == 1
    assert grown("gen_ai_server_request_duration_seconds_count", error_type="invalid_request", **labels) == 1
    assert grown("gen_ai_server_time_to_first_token_seconds_count", **labels) == 1
    assert grown("gen_ai_server_time_per_output_token_seconds_count", **labels) == 1
    assert grown("extproc_exchanges_total", model="demo-llm", termination="completed") == 1
    assert grown("extproc_exchanges_total", model="demo-llm", termination="rejected", reason="invalid_request") == 1
    assert grown("extproc_verdicts_total", policy="route", verdict="reject", mode="enforce") == 1
    assert grown("extproc_overhead_seconds_count") == 2
    assert grown("extproc_policy_duration_seconds_count", policy="identify") == 2


def test_labels_are_from_closed_sets_whatever_clients_say(http: httpx.Client, stack: Stack) -> None:
    strange = f"strange-{uuid.uuid4().hex}"
    http.post("/v1/chat/completions", json={**chat(), "model": strange})
    http.post(f"/v2/models/{strange}/infer", json={"inputs": []})
    http.get(f"/v1/models/{strange}")
    http.request("PATCH", f"/v1/chat/completions/{strange}")
    http.get(f"/{strange}?{strange}={strange}", headers={"authorization": f"Bearer {strange}"})
    assert wait_until(lambda: in_flight(admin_port(stack)) == 0)
    scrape = Scrape(admin_port(stack))
    assert strange not in str(scrape.series)
    exchanges = scrape.label_values("extproc_exchanges_total")
    assert exchanges["operation"] <= {"chat", "completions", "embeddings", "infer", "models", "none"}
    assert exchanges["model"] <= {"", *stack.config.models}
    assert exchanges["pool"] <= {"", *stack.config.pools}
    terminations = {"completed", "rejected", "cancelled", "upstream_error", "internal_error"}
    assert exchanges["termination"] <= terminations
    assert all(re.fullmatch(r"[a-z_]*", reason) for reason in exchanges["reason"])
    assert scrape.label_values("gen_ai_client_token_usage_count")["gen_ai_token_type"] <= {"input", "output"}
    assert scrape.label_values("extproc_policy_duration_seconds_count")["policy"] <= set(POLICIES)


# What is never said.


def test_no_word_of_a_prompt_and_no_key_is_in_any_file(http: httpx.Client, stack: Stack, stack_key: str) -> None:
    secret = f"confidential{uuid.uuid4().hex}"
    wrong_key = f"sk-xp-{uuid.uuid4().hex}"
    messages = chat(secret)["messages"]
    tensor = {"name": secret, "shape": [1, 1], "datatype": "BYTES", "data": [secret]}
    requests: list[tuple[str, Any]] = [
        ("/v1/chat/completions", chat(f"[[demo:echo]]{secret}")),
        ("/v1/chat/completions", chat(f"[[demo:echo]]{secret}", stream=True)),
        ("/v1/chat/completions", chat(f"{secret}[[demo:error-before]]")),
        ("/v1/chat/completions", chat(f"{secret}[[demo:error-after=2]]", stream=True)),
        ("/v1/chat/completions", chat(secret * 3000)),
        ("/v1/chat/completions", chat(secret, temperature=secret)),
        ("/v1/chat/completions", chat(secret, stop=[secret], user=secret, metadata={"k": secret})),
        ("/v1/chat/completions", chat(secret, **{secret: 1})),
        ("/v1/chat/completions", {"model": secret, "messages": messages}),
        ("/v1/chat/completions", {"model": "demo-llm", "messages": secret}),
        ("/v1/chat/completions", {"model": "demo-llm", "messages": [{"role": secret, "content": secret}]}),
        ("/v1/completions", {"model": "demo-llm", "prompt": f"[[demo:echo]]{secret}"}),
        ("/v1/embeddings", {"model": "minilm", "input": [secret, secret * 500]}),
        ("/v2/models/minilm/infer", {"inputs": [tensor]}),
    ]  # fmt: skip
    answers = [http.post(f"{path}?q={secret}", json=body, headers={"x-note": secret}) for path, body in requests]
    answers.append(http.post("/v1/chat/completions", content=f'{{"model": "{secret}'.encode()))
    answers.append(
        http.post("/v1/chat/completions", json=chat(secret), headers={"authorization": f"Bearer {wrong_key}"})
    )
    answers.append(http.post("/v1/chat/completions", json=chat(secret), headers={"x-api-key": wrong_key}))
    assert {answer.status_code for answer in answers} >= {200, 400, 401, 404, 502}
    for answer in answers:
        access_line(stack, answer.headers["x-request-id"])
    files = [path for path in stack.settings.run_dir.rglob("*") if path.is_file()]
    assert {path.stem for path in files} >= {"service", "envoy", "redis", "triton-a", "triton-b"}
    said = [(path.name, word) for path in files for word in (secret, stack_key, wrong_key) if _mentions(path, word)]
    assert said == []


def _mentions(path: pathlib.Path, word: str) -> bool:
    return word.encode() in path.read_bytes()
