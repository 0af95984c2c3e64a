"""docs/experiments.md is true: its configuration, its script and its commands print what it says."""

import pathlib
import re
import subprocess
import sys

import yaml

from extproc.stack.stack import Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.stack import CONFIG

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "experiments.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_example(stack: Stack, stack_key: str, tmp_path: pathlib.Path) -> None:
    config = yaml.safe_load(CONFIG.read_text())
    for section, content in yaml.safe_load(blocks("yaml")[0]).items():
        config[section] = config.get(section, {}) | content
    gateway = GatewayBeside(stack, tmp_path, yaml.safe_dump(config))
    try:
        environment = {**gateway.environment, "KEY": stack_key}
        script = blocks("python")[0].replace("http://127.0.0.1:10000", gateway.base_url.removesuffix("/v1"))
        printed, by_commands = blocks("text")
        assert run([sys.executable, "-c", script], environment) == printed
        commands = blocks("sh")[0].replace("extproc", f"{sys.executable} -m extproc")
        commands = re.sub("$", f" -c {gateway.config_path}", commands.strip(), flags=re.MULTILINE)
        assert run(["sh", "-ec", commands], environment) == by_commands
    finally:
        gateway.close()


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
