"""Every query of every dashboard, rule and alert, asked of a real Prometheus that watches a running stack.

The gateway has all policies on, an experiment and narrow lines, and gets the traffic of `extproc demo`. What a GPU
would say is said by a page that is shaped as Triton's.
"""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import math
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from extproc.cli import demo_traffic
from extproc.stack.stack import Stack
from tests.e2e.test_everything_on import SHIPPED, switched_on
from tests.helpers.beside import GatewayBeside
from tests.helpers.processes import wait_until
from tests.helpers.prometheus import PrometheusServer

TELEMETRY = pathlib.Path(__file__).parents[2] / "envoy" / "telemetry"
RULES = TELEMETRY / "rules.yaml"
GPU_PAGE = b"""
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.5
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 40e9
nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 80e9
nv_gpu_power_usage{gpu_uuid="GPU-1"} 300
"""
NOBODY = """  tracing: {otlp_grpc: "127.0.0.1:9", sampling_percent: 100}
"""
SPLIT_AND_NARROW = """
experiments:
  llm-v2:
    control: current
    sticky: request
    arms: {current: {pool: demo, weight: 50}, next: {pool: demo-next, weight: 50}}
pools:
  demo-next:
    dialect: triton-generate
    model: demo_llm
    clusters: {triton-b: {endpoints: ["127.0.0.1:${EXTPROC_TRITON_B_HTTP_PORT}"]}}
policies:
  route: {rules: [{name: new-version, when: {models: [demo-llm]}, to: {experiment: llm-v2}}]}
  admit: {pools: {demo: {requests: 2}, demo-next: {requests: 2}}}
"""
MORE_LIMITS = """  limit:
    mode: enforce
    budgets: {small: {scope: team, per: day, amount: "0.02", mode: shadow}}
"""


def dashboards() -> Any:
    spec = importlib.util.spec_from_file_location("dashboards", TELEMETRY / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["dashboards"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class GpuPage(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(GPU_PAGE)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def gpu_port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), GpuPage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def gateway(_session_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBeside]:
    text = re.sub("^  limit:.*\n", MORE_LIMITS, switched_on(SHIPPED.read_text()), count=1, flags=re.MULTILINE)
    text = text.replace("  log_level: info\n", "  log_level: info\n" + NOBODY, 1)
    config = yaml.safe_load(text)
    for section, content in yaml.safe_load(SPLIT_AND_NARROW).items():
        config[section] = config.get(section, {}) | content
    beside = GatewayBeside(_session_stack, tmp_path_factory.mktemp("gateway"), yaml.safe_dump(config))
    yield beside
    beside.close()


@pytest.fixture(scope="module")
def prometheus(
    _session_stack: Stack, gateway: GatewayBeside, gpu_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusServer]:
    """The shipped configuration of Prometheus, at this stack's ports and faster, once the demo's traffic is over."""
    directory = tmp_path_factory.mktemp("prometheus")
    tritons = _session_stack.settings.ports
    moved = {9002: gateway.ports.service_admin, 9901: gateway.ports.gateway_admin, 8002: tritons.triton_a.metrics,
             8012: tritons.triton_b.metrics}  # fmt: skip
    text = (TELEMETRY / "prometheus.yaml").read_text().replace("10s", "1s").replace("rules.yaml", str(RULES))
    text = re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{moved[int(found[1])]}", text)
    config = yaml.safe_load(text)
    config["scrape_configs"].append({"job_name": "gpu", "static_configs": [{"targets": [f"127.0.0.1:{gpu_port}"]}]})
    path = directory / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    with contextlib.closing(PrometheusServer(directory, path)) as server:
        send_demo(gateway)
        yield server


def send_demo(gateway: GatewayBeside) -> None:
    command = [sys.executable, "-m", "extproc", "demo", "--config", str(gateway.config_path)]
    sent = subprocess.run(
        [*command, "--duration", "10", "--rate", "20"],
        env=gateway.environment,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert sent.returncode == 0, sent.stderr
    statuses = set(re.findall(r"^\w+ +(\d{3}|no answer) ", sent.stdout, re.MULTILINE))
    assert {"200", "400", "401", "404", "429", "502"} <= statuses, sent.stdout
    assert "no answer" not in statuses, sent.stdout
    assert set(re.findall(r"^\w+", sent.stdout, re.MULTILINE)) == set(demo_traffic.SHARES), sent.stdout


def asked(expr: str) -> str:
    """A panel's query as Grafana sends it, with everything chosen."""
    return expr.replace("$__rate_interval", "1m").replace("$model", ".*")


def has_data(prometheus: PrometheusServer, expr: str) -> bool:
    return any(not math.isnan(float(series["value"][1])) for series in prometheus.query(expr))


def test_every_panel_shows_something(prometheus: PrometheusServer) -> None:
    empty = [
        (dashboard.name, panel.title, query.expr)
        for dashboard in dashboards().DASHBOARDS
        for panel in dashboard.panels
        for query in panel.queries
        if not wait_until(lambda query=query: has_data(prometheus, asked(query.expr)), 5.0)  # type: ignore[misc]
    ]
    assert empty == []


def test_prometheus_takes_the_exemplars(prometheus: PrometheusServer) -> None:
    histogram = "gen_ai_server_time_to_first_token_seconds_bucket"
    now_s = time.time()
    found = prometheus.get("query_exemplars", query=histogram, start=str(now_s - 300), end=str(now_s))
    traces = [exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]]
    assert traces
    assert all(re.fullmatch("[0-9a-f]{32}", trace) for trace in traces)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_recording_rule_records(prometheus: PrometheusServer) -> None:
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    assert [name for name in recorded if not has_data(prometheus, name)] == []


def test_every_alert_can_be_evaluated_and_knows_its_metrics(prometheus: PrometheusServer) -> None:
    seen = set(prometheus.get("label/__name__/values"))
    happens_only_in_trouble = {"extproc_policy_failures_total"}
    state = prometheus.get("rules")
    alerts = [rule for group in state["groups"] for rule in group["rules"] if rule["type"] == "alerting"]
    assert {rule["name"] for rule in alerts} == {rule["alert"] for rule in rules() if "alert" in rule}
    assert [(rule["name"], rule.get("lastError")) for rule in alerts if rule["health"] != "ok"] == []
    named = {name for rule in alerts for name in re.findall(r"\b(?:extproc|envoy|nv)[_:][\w:]+", rule["query"])}
    labels = {name for name in named if name in ("envoy_cluster_name", "envoy_response_code_class",
                                                 "envoy_http_conn_manager_prefix")}  # fmt: skip
    assert named - labels - seen <= happens_only_in_trouble
    assert len(named & seen) >= 10


def test_a_wrong_query_is_noticed(prometheus: PrometheusServer) -> None:
    assert not has_data(prometheus, "extproc_no_such_metric")
    with pytest.raises(urllib.error.HTTPError):
        prometheus.query("sum(")


def test_the_files_are_what_the_script_writes() -> None:
    for path, text in dashboards().files():
        assert path.read_text() == text, f"run `python envoy/telemetry/dashboards.py`: {path.name}"
    assert {path.name for path in (TELEMETRY / "dashboards").iterdir()} == {
        path.name for path, _ in dashboards().files()
    }
