"""The document of the admin API is the committed one."""

import json
import pathlib
import runpy

ROOT = pathlib.Path(__file__).resolve().parents[3]


def openapi() -> str:
    text: str = runpy.run_path(str(ROOT / "docs" / "reference.py"))["openapi"]()
    return text


def test_the_committed_document_is_up_to_date() -> None:
    assert (ROOT / "docs" / "openapi.json").read_text() == openapi(), "run `python docs/reference.py`"


def test_every_operation_has_a_name_and_the_errors_one_shape() -> None:
    document = json.loads(openapi())
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        for status, answer in operation["responses"].items():
            schema = answer["content"]["application/json"]["schema"]
            assert (schema == {"$ref": "#/components/schemas/Error"}) is (int(status) >= 400)
