"""Every example of docs/routing.md is a configuration that `extproc check` finds nothing wrong with."""

import pathlib
import re

import pytest
import yaml

from extproc.cli.main import main
from extproc.config.balancing import Balancing

PAGE = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "routing.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
REST = {
    "keys": {"hash_secret": "0123456789abcdef"},
    "models": {
        "m": {
            "pool": "chat",
            "operations": ["chat"],
            "tokenizer": {"type": "tiktoken", "encoding": "cl100k_base"},
            "chat_template": "chatml",
            "context_window": 100,
        }
    },
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_extproc_check_finds_nothing_wrong(example: str, tmp_path: pathlib.Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(yaml.safe_dump(REST | yaml.safe_load(example)))
    assert main(["check", str(config)]) == 0


def test_every_strategy_has_an_example() -> None:
    strategies = {pool["balancing"] for example in EXAMPLES for pool in yaml.safe_load(example)["pools"].values()}
    assert strategies == set(Balancing)
