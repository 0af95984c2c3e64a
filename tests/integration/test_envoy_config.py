"""Every kind of configuration is one that Envoy accepts, without a warning."""

import os
import pathlib
import subprocess

import pytest

from extproc import config
from extproc.mesh import bootstrap_yaml, write_xds
from extproc.policies import pipeline
from tests.helpers.gateways import ENVOY

EXAMPLE = pathlib.Path(__file__).parents[2] / "envoy" / "gateway.yaml"
KEYS = "keys: {hash_secret: 0123456789abcdef}\n"
MODELS = "models: {m: {pool: p, operations: [chat], context_window: 100}}\n"
POOL = 'pools: {p: {dialect: openai, model: x, clusters: {c: {endpoints: ["127.0.0.1:8000"]}}}}\n'
MINIMAL = KEYS + MODELS + POOL


_ONE = '{c: {endpoints: ["127.0.0.1:8000"]}}'
_OTHER = f", q: {{dialect: openai, model: y, clusters: {_ONE}}}"


def pool(settings: str = "", clusters: str = _ONE, more: str = "") -> str:
    return f"{KEYS}{MODELS}pools: {{p: {{dialect: openai, model: x, clusters: {clusters}, {settings}}}{more}}}\n"


CONFIGURATIONS = {
    "minimal": MINIMAL,
    "TCP workers": MINIMAL + 'service: {listen: "127.0.0.1:9000", workers: 4}\n',
    "a named service": MINIMAL + 'service: {listen: "extproc.internal:9000"}\n',
    "Unix workers": MINIMAL + 'service: {listen: "unix:/tmp/x.sock", workers: 4}\n',
    "IPv6": MINIMAL + 'gateway: {listen: "[::]:10000", admin: "[::1]:9901"}\n',
    "no access log": MINIMAL + "gateway: {access_log: null}\n",
    "small bodies": MINIMAL + "gateway: {max_body_bytes: 1024, trusted_hops: 2}\n",
    "fail open": MINIMAL + "gateway: {default_pool: p}\nservice: {on_failure: open}\n",
    "tracing": MINIMAL + 'telemetry: {tracing: {otlp_grpc: "collector:4317", sampling_percent: 0.1}}\n',
    "tracing to an address": MINIMAL + 'telemetry: {tracing: {otlp_grpc: "[::1]:4317"}}\n',
    "a fallback": pool("fallback: [{pool: q}]", more=_OTHER),
    "a fallback by TCP": pool("fallback: [{pool: q}]", more=_OTHER) + "gateway: {fallback_listen: '[::1]:9903'}\n",
    "least request": pool("balancing: least_request, http2: true, retries: 0"),
    "round robin": pool("balancing: round_robin", '{a: {weight: 0, endpoints: ["a:1"]}, b: {endpoints: ["b:1"]}}'),
    "maglev": pool("balancing: consistent_hash"),
    "the fewest tokens": pool(
        "balancing: least_tokens",
        '{a: {weight: 5, endpoints: ["10.0.0.1:1", "[::1]:3"]}, b: {weight: 0, endpoints: ["10.0.0.2:1"]}}',
    ),
    "the least busy GPU": pool(
        "balancing: gpu_aware, fallback: [{pool: q}]",
        '{a: {endpoints: ["10.0.0.1:1"], metrics: ["metrics.internal:8002"]}}',
        more=_OTHER,
    ),
    "an unbounded ring": pool(
        "balancing: consistent_hash, consistent_hash: {table: ring_hash, max_load_percent: null}",
        '{a: {weight: 999999, endpoints: ["a:1"]}, b: {endpoints: ["b:1", "127.0.0.1:2", "[::1]:3"]}}',
    ),
    "named endpoints": pool(clusters='{c: {endpoints: ["triton.internal:8000", "127.0.0.1:8001", "[::1]:8000"]}}'),
    "weights": pool(clusters='{a: {weight: 0, endpoints: ["a:1"]}, b: {weight: 3, endpoints: ["b:1", "b:2"]}}'),
    "everything of a pool": pool(
        "connect_timeout_s: 0.05, request_timeout_s: 86400, idle_timeout_s: 0.5,"
        "health: {path: /up, interval_s: 0.5, timeout_s: 0.25, unhealthy_after: 3, healthy_after: 2},"
        "outlier_detection: {consecutive_5xx: 3, ejection_s: 1.5, max_ejected_percent: 0},"
        "circuit_breaker: {max_connections: 1, max_pending_requests: 1, max_requests: 1, retry_budget_percent: 0}"
    ),
}


def assert_accepted(bootstrap: pathlib.Path) -> None:
    arguments = (ENVOY, "--mode", "validate", "--use-dynamic-base-id", "-l", "warning", "-c", str(bootstrap))
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_envoy_accepts_it(name: str, tmp_path: pathlib.Path) -> None:
    loaded = config.parse(CONFIGURATIONS[name], {}, {})
    bootstrap = tmp_path / "envoy.yaml"
    bootstrap.write_text(bootstrap_yaml(loaded))
    assert_accepted(bootstrap)
    assert_accepted(write_xds(loaded, tmp_path / "xds"))


def test_envoy_accepts_the_example(tmp_path: pathlib.Path) -> None:
    (tmp_path / "models" / "minilm").mkdir(parents=True)
    (tmp_path / "models" / "minilm" / "tokenizer.json").touch()
    env = {"EXTPROC_KEY_SECRET": "0123456789abcdef", "EXTPROC_HOME": str(tmp_path)}
    bootstrap = tmp_path / "envoy.yaml"
    bootstrap.write_text(bootstrap_yaml(config.load(EXAMPLE, pipeline.SETTINGS, env)))
    assert_accepted(bootstrap)


def test_the_configuration_directory_does_not_shadow_the_envoy_package() -> None:
    assert not os.path.exists(EXAMPLE.parent / "__init__.py")
