"""Whose answer is whose, what a change forgets, and what of personal data is kept: from both ends of a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from extproc.config.policy import PolicyMode, PolicySettings
from extproc.detection.replacement import Action
from extproc.policies.cache_settings import Settings
from extproc.policies.redact_settings import AnswerRules, RequestRules
from extproc.policies.redact_settings import Settings as RedactSettings
from tests.helpers import journeys
from tests.helpers.journeys import Inside
from tests.helpers.shelf import Keys, Shelf, answered

ASKED = {"key": "red/ann/pro", "namespace": "", "model": "talker", "question": "Hi", "system": "", "stream": False}
MAIL, OTHER_MAIL = "ann.lee@example.com", "bob.ray@example.com"
TALKER = "  talker:\n    pool: openai\n"
POOL = '{{dialect: triton-generate, model: up, clusters: {{one: {{endpoints: ["127.0.0.1:2"]}}}}}}\n'
ARMS = """
experiments:
  trial:
    control: one
    sticky: user
    arms: {{one: {{pool: openai, weight: 50}}, two: {{pool: openai, weight: 50}}}}
policies: {{route: {{rules: [{{name: all, when: {{models: [talker]}}, to: {{experiment: trial}}}}]}}}}
"""


def inside(directory: Path, shelf: Shelf, **policies: PolicySettings) -> Inside:
    return Inside(directory, {"cache": Settings(mode=PolicyMode.ENFORCE), **policies}, answers=shelf, keys=Keys())


@pytest.mark.parametrize(
    ("before", "after", "how"),
    [
        ("", "", "hit"),
        (TALKER, f"{TALKER}    revision: second\n", "miss"),
        ("max_output_tokens: 100", "max_output_tokens: 99", "miss"),
        ("context_window: 1000", "context_window: 1001", "miss"),
        ("{{dialect: openai, model: up,", "{{dialect: openai, model: up2,", "miss"),
        ("  openai: {{", f"  third: {POOL}  openai: {{{{", "hit"),
        (TALKER, f'{TALKER}    price: {{{{input_per_mtok: "1", output_per_mtok: "1", currency: EUR}}}}\n', "hit"),
        ('["127.0.0.1:1"]', '["127.0.0.1:3"]', "hit"),
    ],
    ids=["nothing", "revision", "cap", "window", "upstream", "another-pool", "price", "endpoint"],
)  # fmt: skip
async def test_what_is_kept_is_of_what_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, how: str
) -> None:
    """A new gateway.yaml finds what was kept under the one before only if it would have been answered the same."""
    shelf = Shelf()
    await answered(inside(tmp_path, shelf), ASKED, "old")
    changed = journeys.CONFIG.replace(before, after, 1)
    assert (changed != journeys.CONFIG) is (before != after)
    monkeypatch.setattr(journeys, "CONFIG", changed)
    text, said = await answered(inside(tmp_path, shelf), ASKED, "new")
    assert said == how
    assert ("old" if how == "hit" else "new") in text


async def test_a_model_that_moves_to_another_pool_is_asked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, asked = Shelf(), {**ASKED, "model": "writer"}
    await answered(inside(tmp_path, shelf), asked, "old")
    moved = journeys.CONFIG.replace("    pool: triton\n", "    pool: second\n")
    moved = moved.replace("  triton: {{", f"  second: {POOL}  triton: {{{{")
    monkeypatch.setattr(journeys, "CONFIG", moved)
    text, how = await answered(inside(tmp_path, shelf), asked, "new")
    assert ("new" in text, how) == (True, "miss")


async def test_arms_do_not_share_answers_even_of_one_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an arm would be judged by what the other said."""
    monkeypatch.setattr(journeys, "CONFIG", journeys.CONFIG + ARMS)
    gateway = inside(tmp_path, Shelf())
    said: dict[str, str] = {}
    for number in range(20):
        text, _ = await answered(gateway, {**ASKED, "user": f"user-{number}"}, f"<{number}>")
        arm = gateway.usage.events[-1]["arm"]
        assert said.setdefault(arm, f"<{number}>") in text
    assert len(said) == 2


REDACTING = RedactSettings(
    mode=PolicyMode.ENFORCE, requests=RequestRules(action=Action.REDACT), responses=AnswerRules()
)
PSEUDONYMISING = RedactSettings(mode=PolicyMode.ENFORCE, requests=RequestRules(action=Action.PSEUDONYMISE))


def told(mail: str) -> dict[str, Any]:
    return {**ASKED, "question": f"I am {mail}, hello"}


async def test_a_pseudonymised_exchange_is_not_kept(tmp_path: Path) -> None:
    """What is put back in its answer is this client's."""
    shelf = Shelf()
    gateway = inside(tmp_path, shelf, redact=PSEUDONYMISING)
    for said in ("one", "two"):
        text, how = await answered(gateway, told(MAIL), said)
        assert (said in text, how) == (True, "miss")
    assert shelf.kept == {}
    await answered(gateway, ASKED, "plain")
    assert len(shelf.kept) == 1


async def test_what_is_kept_of_an_answer_was_redacted_before(tmp_path: Path) -> None:
    shelf = Shelf()
    gateway = inside(tmp_path, shelf, redact=REDACTING)
    await answered(gateway, ASKED, f"write to {MAIL}")
    (body,) = shelf.kept.values()
    assert b"<EMAIL_ADDRESS>" in body
    assert MAIL.encode() not in body
    text, how = await answered(gateway, ASKED, "unasked")
    assert (MAIL in text, "<EMAIL_ADDRESS>" in text, how) == (False, True, "hit")


async def test_who_differs_only_in_what_is_redacted_gets_no_others_answer(tmp_path: Path) -> None:
    gateway = inside(tmp_path, Shelf(), redact=REDACTING)
    first, second = [await answered(gateway, told(mail), said) for mail, said in ((MAIL, "1st"), (OTHER_MAIL, "2nd"))]
    assert ("1st" in first[0], first[1]) == (True, "miss")
    assert ("2nd" in second[0], second[1]) == (True, "miss")
