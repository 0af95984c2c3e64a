"""Writes the Grafana dashboards beside this file; a test asserts that they are up to date, another that every query
returns data from a running stack.

Run `python envoy/telemetry/dashboards.py` after changing a panel.
"""

import json
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

FOLDER = pathlib.Path(__file__).parent / "dashboards"
RATE = "[$__rate_interval]"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS, _WIDTH, _HEIGHT = 24, 8, 8
_QUANTILES = (0.5, 0.95, 0.99)
_GATEWAY = 'envoy_http_conn_manager_prefix="gateway"'
_POOLS = 'envoy_cluster_name!~"extproc|otlp"'
_MODEL = 'gen_ai_request_model=~"$model"'


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """`needs_gpu`: its metrics come from GPUs, so that a machine without one shows nothing."""

    title: str
    unit: str
    queries: Sequence[Query]
    text: str = ""
    kind: str = "timeseries"
    needs_gpu: bool = False


@dataclass(frozen=True)
class Dashboard:
    name: str
    title: str
    panels: Sequence[Panel]


def one(title: str, unit: str, expr: str, legend: str = "", text: str = "", **more: Any) -> Panel:
    return Panel(title, unit, [Query(expr, legend or title.lower())], text, **more)


def per(metric: str, label: str, match: str = "") -> Query:
    """Events a second by a label."""
    return Query(f"sum by ({label}) (rate({metric}{{{match}}}{RATE}))", f"{{{{{label}}}}}")


def rates(title: str, metric: str, label: str, match: str = "", unit: str = "reqps", text: str = "") -> Panel:
    return Panel(title, unit, [per(metric, label, match)], text)


def quantiles(title: str, histogram: str, match: str = "", unit: str = "s", text: str = "") -> Panel:
    return Panel(title, unit, [_quantile(quantile, histogram, match) for quantile in _QUANTILES], text)


def _quantile(quantile: float, histogram: str, match: str) -> Query:
    expr = f"histogram_quantile({quantile}, sum by (le) (rate({histogram}_bucket{{{match}}}{RATE})))"
    return Query(expr, f"p{quantile * 100:g}")


def p95_by(title: str, histogram: str, labels: str, match: str = "", unit: str = "s", text: str = "") -> Panel:
    expr = f"histogram_quantile(0.95, sum by (le, {labels}) (rate({histogram}_bucket{{{match}}}{RATE})))"
    return Panel(title, unit, [Query(expr, " ".join(f"{{{{{label}}}}}" for label in labels.split(", ")))], text)


OVERVIEW = Dashboard("overview", "extproc / overview", [
    one("Error budget left", "percentunit", "1 - extproc:errors:ratio_rate3d / 0.001",
        text="Of the last three days, at an objective of 99.9 % of requests without a 5xx.", kind="stat"),
    one("Requests", "reqps", f"sum(rate(envoy_http_downstream_rq_total{{{_GATEWAY}}}{RATE}))", kind="stat"),
    one("Open requests", "short", "sum(extproc_streams_in_flight)", kind="stat"),
    rates("Answers by class", "envoy_http_downstream_rq_xx", "envoy_response_code_class", _GATEWAY,
          text="As clients see them: Envoy's own errors too."),
    one("Share of 5xx", "percentunit", "extproc:errors:ratio_rate5m"),
    rates("How requests ended", "extproc_exchanges_total", "termination", 'model=~"$model"'),
    rates("Requests by operation", "extproc_exchanges_total", "operation", 'model=~"$model"'),
    rates("Refusals by policy", "extproc_verdicts_total", "policy", 'verdict="reject", mode="enforce"'),
    rates("Refusals and failures by reason", "extproc_exchanges_total", "reason", 'reason!=""'),
    quantiles("Time in the service", "extproc_overhead_seconds", text="What the gateway adds to a request."),
    Panel("Degraded", "short", [Query("max by (policy) (extproc_degraded)", "{{policy}}"),
                                Query("max(extproc_ledger_degraded)", "ledger")],
          "1 while a policy, or the ledger, does without Redis."),
    rates("Configuration", "extproc_config_reloads_total", "outcome", unit="ops"),
])  # fmt: skip

TOKENS = Dashboard("tokens", "extproc / tokens and cost", [
    rates("Tokens by type", "gen_ai_client_token_usage_sum", "gen_ai_token_type", _MODEL, "short"),
    rates("Tokens by model", "gen_ai_client_token_usage_sum", "gen_ai_request_model", _MODEL, "short"),
    rates("Output tokens by cluster", "envoy_extproc_output_tokens", "cluster", 'model=~"$model"', "short",
          "Envoy's own statistics: which cluster wrote them."),
    quantiles("Input tokens per request", "gen_ai_client_token_usage", f'gen_ai_token_type="input", {_MODEL}', "short"),
    quantiles("Output tokens per request", "gen_ai_client_token_usage", f'gen_ai_token_type="output", {_MODEL}',
              "short"),
    rates("Tokens that caches saved", "extproc_cache_saved_tokens_total", "level", unit="short"),
    Panel("Cost per hour by model", "short",
          [Query(f'3600 * sum by (model, currency) (rate(extproc_cost_total{{model=~"$model"}}{RATE}))',
                 "{{model}} {{currency}}")]),
    Panel("Cost per hour by tier", "short",
          [Query(f'3600 * sum by (tier, currency) (rate(extproc_cost_total{{model=~"$model"}}{RATE}))',
                 "{{tier}} {{currency}}")],
          "By team and key: `extproc usage`; as labels those would be without bound."),
    rates("Ledger", "extproc_ledger_records_total", "outcome", unit="ops"),
    one("Usage not in the ledger yet", "bytes", "sum(extproc_ledger_waiting_bytes)"),
])  # fmt: skip

LATENCY = Dashboard("latency", "extproc / latency", [
    quantiles("Whole request", "gen_ai_server_request_duration_seconds", _MODEL),
    quantiles("Time to first token", "gen_ai_server_time_to_first_token_seconds", _MODEL),
    quantiles("Time per output token", "gen_ai_server_time_per_output_token_seconds", _MODEL),
    p95_by("Whole request by model, p95", "gen_ai_server_request_duration_seconds", "gen_ai_request_model", _MODEL),
    p95_by("Time to first token by model, p95", "gen_ai_server_time_to_first_token_seconds", "gen_ai_request_model",
           _MODEL),
    p95_by("Time to first token by cluster, p95", "envoy_extproc_time_to_first_token_ms", "cluster", unit="ms",
           text="Envoy's own statistics: which cluster is slow."),
    quantiles("Time in the service", "extproc_overhead_seconds"),
    p95_by("Time in each policy, p95", "extproc_policy_duration_seconds", "policy"),
    p95_by("Upstream requests by cluster, p95", "envoy_cluster_upstream_rq_time", "envoy_cluster_name", _POOLS, "ms"),
    quantiles("Asking the encoder", "extproc_encoder_duration_seconds"),
])  # fmt: skip

_HITS = "extproc_cache_lookups_total"
CACHE = Dashboard("cache", "extproc / cache", [
    Panel("Share of lookups that hit", "percentunit",
          [Query(f'sum by (level) (rate({_HITS}{{result=~"hit|semantic"}}{RATE}))'
                 f' / sum by (level) (rate({_HITS}{{result!="bypass"}}{RATE}))', "{{level}}")]),
    Panel("Lookups", "reqps", [Query(f"sum by (level, result) (rate({_HITS}{RATE}))", "{{level}} {{result}}")]),
    rates("Tokens saved", "extproc_cache_saved_tokens_total", "level", unit="short"),
    rates("Waits for another request's answer", "extproc_cache_waits_total", "outcome"),
    rates("Questions near one, by where they ended", "extproc_cache_semantic_candidates_total", "gate"),
    one("Answers kept", "ops", f"sum(rate(extproc_cache_kept_total{RATE}))"),
    one("Bytes kept", "Bps", f"sum(rate(extproc_cache_kept_bytes_total{RATE}))"),
    one("Answers that made room for others", "ops", f"sum(rate(extproc_cache_evicted_total{RATE}))"),
    rates("Answers reported as wrong", "extproc_cache_reports_total", "response", unit="ops"),
])  # fmt: skip

SAFETY = Dashboard("safety", "extproc / safety", [
    one("Share of requests the guard refuses", "percentunit", "extproc:guard_blocks:ratio_rate5m"),
    Panel("Attacks by family", "reqps",
          [Query(f"sum by (family, mode) (rate(extproc_guard_found_total{RATE}))", "{{family}} {{mode}}")]),
    quantiles("Guard's score", "extproc_guard_score", unit="short"),
    Panel("Personal data found", "ops",
          [Query(f"sum by (entity, action) (rate(extproc_pii_found_total{RATE}))", "{{entity}} {{action}}")]),
    rates("Personal data by direction", "extproc_pii_found_total", "direction", unit="ops"),
    Panel("Content rules", "ops",
          [Query(f"sum by (rule, action) (rate(extproc_content_found_total{RATE}))", "{{rule}} {{action}}")]),
    Panel("Verdicts, enforced and shadowed", "reqps",
          [Query(f"sum by (policy, verdict, mode) (rate(extproc_verdicts_total{RATE}))",
                 "{{policy}} {{verdict}} {{mode}}")]),
    one("Encoder: texts waiting", "short", "sum(extproc_encoder_waiting)"),
    quantiles("Encoder: texts in a batch", "extproc_encoder_batch_texts", unit="short"),
    Panel("Encoder runs on", "short", [Query("max by (provider) (extproc_encoder_provider)", "{{provider}}")]),
    one("Audit records lost", "ops", f"sum(rate(extproc_audit_lost_total{RATE}))"),
])  # fmt: skip

LIMITS = Dashboard("limits", "extproc / limits", [
    Panel("Requests without room, by limit", "reqps",
          [Query(f"sum by (limit, mode) (rate(extproc_limit_exceeded_total{RATE}))", "{{limit}} {{mode}}")]),
    one("Share of requests refused by limits", "percentunit",
        f'sum(rate(extproc_verdicts_total{{policy="limit", verdict="reject", mode="enforce"}}{RATE}))'
        f" / sum(rate(extproc_exchanges_total{RATE}))"),
    Panel("Budgets: the most used", "percentunit",
          [Query("extproc:budget_used:max5m", "{{limit}}")],
          "The fullest budget of each name that was drawn on in the last five minutes."),
    rates("Budgets passing their soft threshold", "extproc_budget_soft_total", "limit", unit="ops"),
    Panel("Pressure of pools", "percentunit", [Query("max by (pool) (extproc_pool_pressure)", "{{pool}}")]),
    Panel("Level of pressure", "short", [Query("max by (pool) (extproc_pool_level)", "{{pool}}")]),
    Panel("What is left of limits", "percentunit",
          [Query("min by (pool, tier) (extproc_limit_factor)", "{{pool}} {{tier}}")],
          "1: the whole; less while adaptive limits hold a tier back."),
    Panel("Limits without Redis", "short", [Query('max(extproc_degraded{policy="limit"})', "degraded")]),
])  # fmt: skip

ADMISSION = Dashboard("admission", "extproc / admission", [
    Panel("Requests that came to a line, by what became of them", "reqps",
          [Query(f"sum by (pool, outcome) (rate(extproc_admissions_total{RATE}))", "{{pool}} {{outcome}}")]),
    Panel("Sent away or waiting, by class", "reqps",
          [Query(f'sum by (priority, outcome) (rate(extproc_admissions_total{{outcome!="at_once"}}{RATE}))',
                 "{{priority}} {{outcome}}")]),
    Panel("At work", "short", [Query("max by (pool, priority) (extproc_pool_requests)", "{{pool}} {{priority}}")],
          "Of all replicas: each says the same."),
    Panel("Waiting", "short", [Query("max by (pool, priority) (extproc_pool_waiting)", "{{pool}} {{priority}}")]),
    Panel("Tokens at work", "short", [Query("max by (pool) (sum by (pool, instance) (extproc_pool_tokens))",
                                            "{{pool}}")]),
    p95_by("Wait, p95", "extproc_queue_wait_seconds", "priority"),
    p95_by("Place in line, p95", "extproc_queue_position", "priority", unit="short"),
    quantiles("Wait of whoever waited", "extproc_queue_wait_seconds"),
    Panel("Lines without Redis", "short", [Query('max(extproc_degraded{policy="admit"})', "degraded")]),
])  # fmt: skip

_ARMS = "extproc_arm_exchanges_total"
_BY_ARM = "experiment, arm"
EXPERIMENTS = Dashboard("experiments", "extproc / experiments", [
    Panel("Requests by arm", "reqps", [Query(f"sum by ({_BY_ARM}) (rate({_ARMS}{RATE}))", "{{experiment}}/{{arm}}")]),
    Panel("Share of an experiment's requests", "percentunit",
          [Query(f"sum by ({_BY_ARM}) (rate({_ARMS}{RATE}))"
                 f" / on (experiment) group_left () sum by (experiment) (rate({_ARMS}{RATE}))",
                 "{{experiment}}/{{arm}}")], "What the weights came to; an arm that was taken out falls to 0."),
    Panel("Share that failed", "percentunit",
          [Query(f'sum by ({_BY_ARM}) (rate({_ARMS}{{termination=~"upstream_error|internal_error"}}{RATE}))'
                 f" / sum by ({_BY_ARM}) (rate({_ARMS}{RATE}))", "{{experiment}}/{{arm}}")],
          "No test: for a decision use `extproc ab report`, which may be looked at as often as one likes."),
    Panel("How requests of an arm ended", "reqps",
          [Query(f"sum by ({_BY_ARM}, termination) (rate({_ARMS}{RATE}))", "{{experiment}}/{{arm}} {{termination}}")]),
    p95_by("Time to first token by arm, p95", "extproc_arm_first_token_seconds", _BY_ARM),
    Panel("Time to first token by arm, median", "s",
          [Query(f"histogram_quantile(0.5, sum by (le, {_BY_ARM})"
                 f" (rate(extproc_arm_first_token_seconds_bucket{RATE})))", "{{experiment}}/{{arm}}")]),
    rates("Requests by rule", "extproc_route_rules_total", "rule"),
    Panel("Changes not heard", "short", [Query('max(extproc_degraded{policy="experiments"})', "degraded")],
          "1 while a worker goes by the weights that it heard last."),
])  # fmt: skip

TRITON = Dashboard("triton", "extproc / Triton and GPU", [
    rates("Inferences", "nv_inference_request_success", "model"),
    rates("Failures", "nv_inference_request_failure", "model"),
    Panel("Waiting in servers", "short", [Query("sum by (pool, endpoint) (extproc_endpoint_queued)",
                                               "{{pool}} {{endpoint}}")]),
    Panel("Waiting in Triton", "short", [Query("sum by (model) (nv_inference_pending_request_count)", "{{model}}")]),
    Panel("Mean time in Triton's queue", "µs",
          [Query(f"sum by (model) (rate(nv_inference_queue_duration_us{RATE}))"
                 f" / sum by (model) (rate(nv_inference_request_success{RATE}) > 0)", "{{model}}")]),
    Panel("Mean time computing", "µs",
          [Query(f"sum by (model) (rate(nv_inference_compute_infer_duration_us{RATE}))"
                 f" / sum by (model) (rate(nv_inference_request_success{RATE}) > 0)", "{{model}}")]),
    Panel("Inferences in a batch", "short",
          [Query(f"sum by (model) (rate(nv_inference_count{RATE}))"
                 f" / sum by (model) (rate(nv_inference_exec_count{RATE}) > 0)", "{{model}}")]),
    Panel("Healthy endpoints", "short",
          [Query(f"sum by (envoy_cluster_name) (envoy_cluster_membership_healthy{{{_POOLS}}})",
                 "{{envoy_cluster_name}}")]),
    Panel("Ejected endpoints", "short",
          [Query(f"sum by (envoy_cluster_name) (envoy_cluster_outlier_detection_ejections_active{{{_POOLS}}})",
                 "{{envoy_cluster_name}}")]),
    Panel("Open upstream requests", "short",
          [Query(f"sum by (envoy_cluster_name) (envoy_cluster_upstream_rq_active{{{_POOLS}}})",
                 "{{envoy_cluster_name}}")]),
    rates("Retries", "envoy_cluster_upstream_rq_retry", "envoy_cluster_name", _POOLS),
    Panel("GPU utilisation", "percentunit", [Query("avg by (gpu_uuid) (nv_gpu_utilization)", "{{gpu_uuid}}")],
          needs_gpu=True),
    Panel("GPU memory", "percentunit",
          [Query("sum by (gpu_uuid) (nv_gpu_memory_used_bytes) / sum by (gpu_uuid) (nv_gpu_memory_total_bytes)",
                 "{{gpu_uuid}}")], needs_gpu=True),
    Panel("GPU power", "watt", [Query("sum by (gpu_uuid) (nv_gpu_power_usage)", "{{gpu_uuid}}")], needs_gpu=True),
])  # fmt: skip

DASHBOARDS = (OVERVIEW, TOKENS, LATENCY, CACHE, SAFETY, LIMITS, ADMISSION, EXPERIMENTS, TRITON)


def files() -> Iterator[tuple[pathlib.Path, str]]:
    """Every dashboard's file and what belongs in it."""
    for dashboard in DASHBOARDS:
        yield FOLDER / f"{dashboard.name}.json", json.dumps(_grafana(dashboard), indent=2) + "\n"


def _grafana(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": f"extproc-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["extproc"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["extproc"], "title": "extproc", "asDropdown": True}],
        "templating": {"list": [_source_variable(), _model_variable()]},
        "panels": [_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }


def _source_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _model_variable() -> dict[str, Any]:
    query = "label_values(extproc_exchanges_total, model)"
    return {
        "name": "model",
        "label": "Model",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": "model"},
        "definition": query,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "current": {"selected": True, "text": "All", "value": "$__all"},
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    across = _COLUMNS // _WIDTH
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text + (" Needs a GPU." if panel.needs_gpu else ""),
        "datasource": _SOURCE,
        "gridPos": {"x": number % across * _WIDTH, "y": number // across * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {} if panel.kind == "stat" else {"tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "expr": query.expr,
                "legendFormat": query.legend,
                "exemplar": "_bucket" in query.expr,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path, text in files():
        path.write_text(text)


if __name__ == "__main__":
    main()
