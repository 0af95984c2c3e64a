"""docs/redaction.md is true: its section, in the configuration of `make run`, does what its script prints."""

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from extproc.stack.stack import Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.stack import CONFIG

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "redaction.md").read_text()


def block(language: str) -> str:
    """The page's first block in this language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(name="gateway")
def _gateway(_session_stack: Stack, tmp_path: pathlib.Path) -> Iterator[GatewayBeside]:
    section = block("yaml").removeprefix("policies:\n")
    text = re.sub(r"^policies:.*\n", lambda head: head[0] + section, CONFIG.read_text(), flags=re.MULTILINE)
    gateway = GatewayBeside(_session_stack, tmp_path, text)
    yield gateway
    gateway.close()


def test_the_example(gateway: GatewayBeside, stack_key: str) -> None:
    script = block("python").replace("http://127.0.0.1:10000/v1", gateway.base_url)
    environment = {**os.environ, "KEY": stack_key}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout == block("text")
