"""Pages of docs/ that tests hold to their word: their blocks of code, and runs of what they show."""

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping

from tests.helpers.beside import GatewayBeside

DOCS = pathlib.Path(__file__).parents[2] / "docs"
_SHOWN = "http://127.0.0.1:10000"


class Page:
    """One page, or of one with a section "A worked example" just that."""

    def __init__(self, name: str) -> None:
        text = (DOCS / f"{name}.md").read_text()
        _, _, example = text.partition("\n## A worked example\n")
        self.text = example.partition("\n## ")[0] or text

    def blocks(self, language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL)

    def run(self, gateway: GatewayBeside, key: str) -> str:
        """What the page's first Python script prints when it is sent to this gateway."""
        script = self.blocks("python")[0].replace(_SHOWN, gateway.base_url.removesuffix("/v1"))
        return printed([sys.executable, "-c", script], {**os.environ, "KEY": key})

    def run_commands(self, gateway: GatewayBeside, key: str) -> str:
        """What the page's first commands print, each with this gateway's configuration."""
        commands = self.blocks("sh")[0].replace("extproc", f"{sys.executable} -m extproc")
        commands = re.sub("$", f" -c {gateway.config_path}", commands.strip(), flags=re.MULTILINE)
        return printed(["sh", "-ec", commands], {**gateway.environment, "KEY": key})


def printed(command: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
