"""docs/admission.md is true: with its section, its script prints what it says."""

import os
import pathlib
import re
import subprocess
import sys

import yaml

from extproc.stack.stack import Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.stack import CONFIG

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "admission.md").read_text()


def block(language: str) -> str:
    """The page's first block in this language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example(stack: Stack, stack_key: str, tmp_path: pathlib.Path) -> None:
    config = yaml.safe_load(CONFIG.read_text())
    config["policies"] |= yaml.safe_load(block("yaml"))["policies"]
    gateway = GatewayBeside(stack, tmp_path, yaml.safe_dump(config))
    try:
        script = block("python").replace("http://127.0.0.1:10000/v1", gateway.base_url)
        environment = {**os.environ, "KEY": stack_key}
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout == block("text")
    finally:
        gateway.close()
