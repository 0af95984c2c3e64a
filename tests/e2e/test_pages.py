"""Pages of docs/ with an example are true: with the page's configuration over that of `make run`, what is to be run
prints what the page says."""

import pathlib
from collections.abc import Callable

import pytest

from extproc.config.tier import Tier
from extproc.stack.stack import Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.layers import layered
from tests.helpers.pages import Page
from tests.helpers.stack import CONFIG

_TIERS = {"limits": Tier.BASIC}
Run = Callable[[Page, GatewayBeside, str], str]


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("admission", [Page.run]),
        ("caching", [Page.run]),
        ("experiments", [Page.run, Page.run_commands]),
        ("limits", [Page.run]),
        ("redaction", [Page.run]),
        ("routing-rules", [Page.run]),
        ("validation", [Page.run]),
    ],
)
def test_the_example(stack: Stack, tmp_path: pathlib.Path, name: str, runs: list[Run]) -> None:
    page, key = Page(name), stack.create_key(name, tier=_TIERS.get(name, Tier.ENTERPRISE))
    gateway = GatewayBeside(stack, tmp_path, layered(CONFIG.read_text(), page.blocks("yaml")[0]))
    try:
        assert [run(page, gateway, key) for run in runs] == page.blocks("text")
    finally:
        gateway.close()
