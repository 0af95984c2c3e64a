"""`extproc route --explain` of a cascade: the small model's pool is asked first, and its endpoints are listed, too."""

from pathlib import Path

import pytest

from extproc.cli.main import main

CONFIG = """
keys: {hash_secret: 0123456789abcdef}
gateway: {admin: "127.0.0.1:1"}
models:
  small: {pool: small, operations: [chat], context_window: 100, max_output_tokens: 20}
  large: {pool: large, operations: [chat], context_window: 100, max_output_tokens: 20}
pools:
  small: {dialect: openai, model: x, balancing: least_tokens, clusters: {c: {endpoints: ["10.0.0.1:8000"]}}}
  large: {dialect: openai, model: x, balancing: least_tokens, clusters: {c: {endpoints: ["10.0.0.2:8000"]}}}
cascades: {frugal: {first: small}}
policies: {route: {rules: [{name: r, when: {models: [large]}, to: {cascade: frugal}}]}}
"""


def test_the_endpoints_of_both_pools_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    assert main(["route", "--explain", "--model", "large", "--no-redis", "--config", str(path)]) == 0
    lines = [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if not line.startswith(("rule", "not known"))] == [
        "cascade frugal: first model small in pool small",
        "endpoint 10.0.0.1:8000: first choice",
        "model large",
        "pool large",
        "endpoint 10.0.0.2:8000: first choice",
    ]
