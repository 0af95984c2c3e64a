"""Pages of docs/ with an example are true: with the page's configuration over that of `make run`, what is to be run
prints what the page says."""

import pathlib
from collections.abc import Callable

import pytest

from extproc.stack.stack import Stack
from tests.helpers.beside import GatewayBeside
from tests.helpers.layers import layered
from tests.helpers.pages import Page
from tests.helpers.stack import CONFIG

Run = Callable[[Page, GatewayBeside, str], str]


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("admission", [Page.run]),
        ("caching", [Page.run]),
        ("experiments", [Page.run, Page.run_commands]),
        ("redaction", [Page.run]),
    ],
)
def test_the_example(stack: Stack, stack_key: str, tmp_path: pathlib.Path, name: str, runs: list[Run]) -> None:
    page = Page(name)
    gateway = GatewayBeside(stack, tmp_path, layered(CONFIG.read_text(), page.blocks("yaml")[0]))
    try:
        assert [run(page, gateway, stack_key) for run in runs] == page.blocks("text")
    finally:
        gateway.close()
