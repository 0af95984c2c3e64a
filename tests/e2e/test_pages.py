"""The worked examples of docs/limits.md and docs/routing-rules.md print what the pages say."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

from extproc.stack.stack import Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.stack import CONFIG

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
TIERS = {"limits": "basic", "routing-rules": "enterprise"}


def example(page: str) -> dict[str, str]:
    """What stands under the heading `A worked example`, by language."""
    section = (DOCS / f"{page}.md").read_text().split("\n## A worked example\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def gateway(_session_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayBeside]:
    config = yaml.safe_load(CONFIG.read_text())
    for page in TIERS:
        for section, content in yaml.safe_load(example(page)["yaml"]).items():
            config[section] = config.get(section, {}) | content
    beside = GatewayBeside(_session_stack, tmp_path_factory.mktemp("gateway"), yaml.safe_dump(config))
    yield beside
    beside.close()


@pytest.mark.parametrize("page", TIERS)
def test_the_example(gateway: GatewayBeside, page: str) -> None:
    create = ("keys", "create", "--name", page, "--tier", TIERS[page], "--config", str(gateway.config_path))
    made = run([sys.executable, "-m", "extproc", *create], gateway.environment)
    script = example(page)["python"].replace("http://127.0.0.1:10000/v1", gateway.base_url)
    printed = run([sys.executable, "-c", script], {**os.environ, "KEY": made.strip()})
    assert printed == example(page)["text"]


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
