"""docs/adding-a-policy.md is true: its blocks, applied to a copy of the package, make a policy that works."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping

import httpx
import pytest

import extproc
from extproc.stack.stack import Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.processes import wait_until
from tests.helpers.stack import CONFIG
from tests.helpers.usage import Scrape

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "adding-a-policy.md").read_text()
LIMIT_BYTES = 2000
SIZES = "extproc_request_size_bytes"


def block(language: str, containing: str) -> str:
    """The page's one block of code in this language with this text in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return str(found)


def insert_line(text: str, diff: str) -> str:
    """What the page shows as a diff: its context, with the added lines in it."""
    lines = diff.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line.startswith(" "))
    after = "".join(line[1:] for line in lines)
    assert text.count(before) == 1
    return text.replace(before, after)


class Copy:
    """The package with the page's policy in it, and its section in a configuration."""

    def __init__(self, directory: pathlib.Path, environment: Mapping[str, str]) -> None:
        package = directory / "extproc"
        shutil.copytree(pathlib.Path(extproc.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        added = re.search(r"^`extproc/(policies/\w+\.py)`:$", PAGE, re.MULTILINE)
        assert added is not None
        (package / added[1]).write_text(block("python", "class MeasureRequest"))
        pipeline = package / "policies" / "pipeline.py"
        imported = block("python", "import MeasureRequest\n")
        text = insert_line(pipeline.read_text(), block("diff", "MeasureRequest"))
        pipeline.write_text(
            text.replace("from extproc.policies.route import", f"{imported}from extproc.policies.route import")
        )
        section = block("yaml", "measure_request").removeprefix("policies:\n")
        assert f"limit_bytes: {LIMIT_BYTES}\n" in section
        self.text = re.sub(r"^policies:.*\n", lambda head: head[0] + section, CONFIG.read_text(), flags=re.MULTILINE)
        # Not from the working directory or where the package is installed, but from here; workers inherit it.
        self.own = {"PYTHONPATH": str(directory), "PYTHONSAFEPATH": "1"}
        self._environment = {**os.environ, **environment, **self.own}

    def run(self, *arguments: str) -> str:
        """What an `extproc` command of the copy prints."""
        command = [sys.executable, "-m", "extproc", *arguments]
        run = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr
        return run.stdout


@pytest.fixture(scope="module")
def copy(_session_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"), _session_stack.environment)


class GatewayOfCopy(GatewayBeside):
    """Its service and its Envoy's configuration are the copy's."""

    def __init__(self, stack: Stack, directory: pathlib.Path, copy: Copy) -> None:
        self._copy = copy
        super().__init__(stack, directory, copy.text, env=copy.own)

    def write_envoy(self) -> pathlib.Path:
        bootstrap = self.directory / "envoy.yaml"
        command = [sys.executable, "-m", "extproc", "envoy", str(self.config_path)]
        bootstrap.write_bytes(subprocess.run(command, env=self.environment, capture_output=True, check=True).stdout)
        return bootstrap


@pytest.fixture(scope="module")
def gateway(_session_stack: Stack, copy: Copy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOfCopy]:
    gateway = GatewayOfCopy(_session_stack, tmp_path_factory.mktemp("gateway"), copy)
    yield gateway
    gateway.close()


def test_its_section_is_checked_and_in_the_schema(copy: Copy, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(copy.text)
    assert "valid" in copy.run("check", str(file))
    assert '"measure_request"' in copy.run("schema")
    file.write_text(copy.text.replace(f"limit_bytes: {LIMIT_BYTES}", "limit_bytes: many"))
    command = [sys.executable, "-m", "extproc", "check", str(file)]
    refused = subprocess.run(command, env=copy._environment, capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0
    assert re.search(r"gateway\.yaml:\d+: policies\.measure_request\.limit_bytes: ", refused.stdout + refused.stderr)


def ask(gateway: GatewayBeside, key: str, padding_bytes: int) -> httpx.Response:
    body = {"model": "demo-llm", "max_tokens": 3, "messages": [{"role": "user", "content": "x" * padding_bytes}]}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers, timeout=30.0)


def test_it_measures_refuses_and_can_be_shadowed(gateway: GatewayOfCopy, copy: Copy, stack_key: str) -> None:
    def scrape() -> Scrape:
        return Scrape(gateway.ports.service_admin)

    assert ask(gateway, stack_key, 10).status_code == 200
    refused = ask(gateway, stack_key, LIMIT_BYTES)
    assert refused.status_code == 413
    assert refused.json()["error"]["code"] == "request_too_large"
    assert scrape().value(f"{SIZES}_count") == 2
    assert scrape().value(f"{SIZES}_bucket", le="256.0") == 1
    assert scrape().value(f"{SIZES}_sum") > LIMIT_BYTES
    verdict = {"policy": "measure_request", "verdict": "reject", "reason": "request_too_large"}
    assert scrape().value("extproc_verdicts_total", mode="enforce", **verdict) == 1
    assert scrape().value("extproc_policy_duration_seconds_count", policy="measure_request") == 2

    gateway.change(
        copy.text.replace(f"limit_bytes: {LIMIT_BYTES}\n", f"limit_bytes: {LIMIT_BYTES}\n    mode: shadow\n")
    )
    assert wait_until(lambda: ask(gateway, stack_key, LIMIT_BYTES).status_code == 200)
    assert scrape().value("extproc_verdicts_total", mode="shadow", **verdict) == 1
    gateway.change(copy.text.replace(f"limit_bytes: {LIMIT_BYTES}\n", f"limit_bytes: {LIMIT_BYTES}\n    mode: 'off'\n"))
    measured = scrape().value(f"{SIZES}_count")

    def off() -> bool:
        before = scrape().value(f"{SIZES}_count")
        assert ask(gateway, stack_key, LIMIT_BYTES).status_code == 200
        return scrape().value(f"{SIZES}_count") == before

    assert wait_until(off)
    assert scrape().value(f"{SIZES}_count") >= measured
    assert json.loads(copy.run("schema"))["properties"]["policies"]
