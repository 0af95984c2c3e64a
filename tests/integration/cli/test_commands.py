"""The command line as a user types it."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest
import yaml

from tests.helpers.redis import RedisServer

CONFIG = """\
redis: {url: "${REDIS_URL}"}
keys: {hash_secret: "${EXTPROC_KEY_SECRET}"}
models:
  demo-llm: {pool: demo, operations: [chat], context_window: 8192}
pools:
  demo: {dialect: openai, model: m, clusters: {a: {endpoints: ["127.0.0.1:1"]}}}
"""

Extproc = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def config(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def extproc(shared_redis: RedisServer, tmp_path: pathlib.Path) -> Extproc:
    environment = os.environ | {
        "REDIS_URL": shared_redis.url,
        "EXTPROC_KEY_SECRET": "a secret for tests only",
        "XDG_STATE_HOME": str(tmp_path),
    }

    def run(*arguments: str | pathlib.Path, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "extproc", *map(str, arguments)]
        return subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("keys",),
        ("keys", "create"),
        ("keys", "create", "--name", "x", "--tier", "gold"),
        ("keys", "revoke"),
        ("up", "--port-base", "70000"),
        ("up", "--workers", "0"),
        ("check",),
        ("demo", "--rate", "0"),
        ("demo", "--rate", "201"),
        ("demo", "--duration", "nan"),
        ("usage", "--by", "nonsense"),
        ("usage", "--by", "team,"),
        ("usage", "--since", "yesterday"),
        ("usage", "--since", "2026-02-01", "--until", "2026-01-01"),
        ("usage", "--format", "xml"),
        ("usage", "--export", "usage.parquet"),
    ],
)
def test_bad_usage_is_exit_code_2(extproc: Extproc, arguments: tuple[str, ...]) -> None:
    result = extproc(*arguments)
    assert result.returncode == 2
    assert "usage: extproc" in result.stderr


@pytest.mark.parametrize(
    "command", ["", "up", "demo", "serve", "check", "schema", "envoy", "keys create", "models build", "usage"]
)
def test_every_command_has_help(extproc: Extproc, command: str) -> None:
    result = extproc(*command.split(), "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("usage: extproc")


def test_check_names_file_line_and_key(extproc: Extproc, config: pathlib.Path) -> None:
    assert extproc("check", config).returncode == 0
    config.write_text(CONFIG.replace("pool: demo,", "pool: demo, nonsense: 1,"))
    result = extproc("check", config)
    assert result.returncode == 1
    assert f"{config}:4:" in result.stderr
    assert "nonsense" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_configuration_is_no_traceback(extproc: Extproc, tmp_path: pathlib.Path) -> None:
    result = extproc("serve", "--config", tmp_path / "none.yaml")
    assert result.returncode == 1
    assert "none.yaml" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [("check",), ("serve", "--config")])
def test_two_onnxruntimes_are_refused(
    extproc: Extproc, config: pathlib.Path, tmp_path: pathlib.Path, command: tuple[str, ...]
) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        record = tmp_path / "site" / f"{name}-1.22.0.dist-info"
        record.mkdir(parents=True)
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.22.0\n")
    path = os.pathsep.join([str(tmp_path / "site"), *sys.path])
    result = extproc(*command, config, PYTHONPATH=path)
    assert result.returncode == 1
    assert result.stderr.startswith("extproc: onnxruntime 1.22.0 and onnxruntime-gpu 1.22.0 are both installed")


def test_schema_and_envoy_print_documents(extproc: Extproc, config: pathlib.Path) -> None:
    assert "properties" in json.loads(extproc("schema").stdout)
    assert "static_resources" in extproc("envoy", config).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("istio-gateway", "--host", "ai.example.com"), "needs --port"),
        (("istio-gateway", "--port", "80"), "needs --host"),
        (("istio-sidecar", "--port", "8000", "--host", "ai.example.com"), "has none"),
        (("istio-sidecar", "--port", "8000", "--xds-dir", "x"), "without --xds-dir"),
    ],
)
def test_an_envoy_filter_for_nobody_is_refused(
    extproc: Extproc, config: pathlib.Path, arguments: tuple[str, ...], said: str
) -> None:
    done = extproc("envoy", "--format", *arguments, str(config))
    assert done.returncode == 1
    assert said in done.stderr


def test_an_envoy_filter_without_the_listener_that_a_fallback_needs_is_refused(
    extproc: Extproc, config: pathlib.Path
) -> None:
    shown = yaml.safe_load(config.read_text())
    name, pool = next(iter(shown["pools"].items()))
    shown["pools"] |= {"spare": pool, name: {**pool, "fallback": [{"pool": "spare"}]}}
    config.write_text(yaml.safe_dump(shown))
    done = extproc("envoy", "--format", "istio-sidecar", "--port", "8000", config)
    assert (done.returncode, done.stdout) == (1, "")
    assert "need a listener of their own" in done.stderr


def test_an_envoy_filter_is_for_whom_it_says(extproc: Extproc, config: pathlib.Path) -> None:
    selected = ("--selector", "app=triton", "--namespace", "models", "--name", "n")
    done = extproc("envoy", "--format", "istio-sidecar", "--port", "8000", *selected, str(config))
    made = yaml.safe_load(done.stdout)
    assert (made["kind"], made["metadata"]) == ("EnvoyFilter", {"name": "n", "namespace": "models"})
    assert made["spec"]["workloadSelector"] == {"labels": {"app": "triton"}}


def test_health_of_a_service_that_is_not_there(extproc: Extproc) -> None:
    done = extproc("health", "--admin", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no answer" in done.stderr


def test_envoy_says_where_it_cannot_write(extproc: Extproc, config: pathlib.Path) -> None:
    result = extproc("envoy", "--xds-dir", config / "below-a-file", config)
    assert result.returncode == 1
    assert result.stderr.startswith(f"extproc: can't write to {config}/below-a-file: ")


def test_the_life_of_a_key(extproc: Extproc, config: pathlib.Path) -> None:
    created = extproc("keys", "create", "--name", "ci", "--team", "x", "--tier", "pro", "--config", config)
    assert created.returncode == 0, created.stderr
    text = created.stdout.strip()
    assert text.startswith("sk-xp-")
    listed = extproc("keys", "list", "--json", "--config", config)
    assert text not in listed.stdout
    (record,) = [record for record in map(json.loads, listed.stdout.splitlines()) if record["name"] == "ci"]
    assert (record["team"], record["tier"], record["models"], record["revoked"]) == ("x", "pro", ["*"], False)
    assert record["hash"] in created.stderr
    assert extproc("keys", "revoke", record["id"], "--config", config).returncode == 0
    row = next(line for line in extproc("keys", "list", "--config", config).stdout.splitlines() if record["id"] in line)
    assert row.endswith("revoked")


def test_keys_refuse_what_does_not_exist(extproc: Extproc, config: pathlib.Path) -> None:
    unknown_model = extproc("keys", "create", "--name", "x", "--model", "gpt", "--config", config)
    assert (unknown_model.returncode, "demo-llm" in unknown_model.stderr) == (1, True)
    unknown_key = extproc("keys", "revoke", "key-nobody", "--config", config)
    assert (unknown_key.returncode, "key-nobody" in unknown_key.stderr) == (1, True)
    no_stack = extproc("keys", "list", "--port-base", "30000", "--config", config)
    assert (no_stack.returncode, "no local stack" in no_stack.stderr) == (1, True)


def test_a_demo_without_a_gateway_says_so(extproc: Extproc, config: pathlib.Path) -> None:
    result = extproc("demo", "--config", config, "--key", "sk-xp-any", "--duration", "0.5", "--rate", "4")
    assert result.returncode == 1
    assert "nothing was answered" in result.stderr
    assert "no answer" in result.stdout


def test_a_lost_redis_is_said_so(extproc: Extproc, config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    result = extproc("keys", "list", "--config", config, REDIS_URL=f"unix://{tmp_path}/none.sock")
    assert result.returncode == 1
    assert result.stderr.startswith("extproc: redis:")
