"""The table of entities in docs/pii.md is what the patterns are."""

import importlib.util
import pathlib

DOCS = pathlib.Path(__file__).parents[3] / "docs"


def test_the_table_of_entities_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("pii_entities", DOCS / "pii_entities.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    current = module.PAGE.read_text()
    assert module.page(current) == current, "run `python docs/pii_entities.py`"
