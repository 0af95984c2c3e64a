"""The section `policies.redact`: what is looked for, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest

from extproc.policies.redact import selection
from extproc.policies.redact_settings import Settings


def test_what_is_looked_for() -> None:
    def entities(**section: Any) -> frozenset[str]:
        return selection(Settings.model_validate_json(json.dumps(section))).entities

    everything = entities()
    assert {"EMAIL_ADDRESS", "US_SSN", "DE_TAX_ID", "API_KEY"} <= everything
    assert "URL" not in everything
    assert entities(requests={"actions": {"URL": "redact"}}) == everything | {"URL"}
    assert entities(regions=["us"]) & {"US_SSN", "DE_TAX_ID", "API_KEY"} == {"US_SSN", "API_KEY"}
    only = {"action": "allow", "actions": {"CREDIT_CARD": "mask", "PERSON": "redact"}}
    assert entities(requests=only, responses={"action": "allow"}) == {"CREDIT_CARD"}


@pytest.mark.parametrize(
    "section", [{"regions": ["xx"]}, {"regions": ["general"]}, {"requests": {"actions": {"EMAIL": "redact"}}}]
)
def test_what_is_not_known_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match="no such"):
        Settings.model_validate_json(json.dumps(section))


def test_a_hash_needs_a_secret_that_blake2_can_take() -> None:
    with pytest.raises(pydantic.ValidationError, match="hash_secret"):
        Settings.model_validate_json('{"requests": {"action": "hash"}}')
    for length in (15, 65):
        with pytest.raises(pydantic.ValidationError, match="16 to 64"):
            Settings.model_validate_json(json.dumps({"hash_secret": "x" * length}))


def test_there_are_no_pseudonyms_in_answers() -> None:
    with pytest.raises(pydantic.ValidationError):
        Settings.model_validate_json('{"responses": {"action": "pseudonymise"}}')
