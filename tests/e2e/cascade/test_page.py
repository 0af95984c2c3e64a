"""docs/cascade.md is true: its configuration, its script and its command print what it says, on real Tritons."""

import pathlib
import re
import subprocess
import sys

import yaml

from extproc.stack.stack import Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.processes import wait_until
from tests.helpers.stack import CONFIG

PAGE = (pathlib.Path(__file__).resolve().parents[3] / "docs" / "cascade.md").read_text()


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
        printed, report = blocks("text")
        assert run([sys.executable, "-c", script], environment) == printed
        (commands,) = blocks("sh")
        commands = commands.replace("extproc", f"{sys.executable} -m extproc")
        shell = ["sh", "-ec", re.sub("$", f" -c {gateway.config_path}", commands.strip(), flags=re.MULTILINE)]
        said: list[str] = []

        def is_told() -> bool:  # the ledger is written behind the answers
            said.append(run(shell, environment))
            return said[-1] == report

        assert wait_until(is_told), said[-1]
    finally:
        gateway.close()


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
