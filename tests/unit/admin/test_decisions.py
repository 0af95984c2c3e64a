"""Recent decisions: facts alone, and never more than there is room for."""

from __future__ import annotations

import msgspec

from extproc.admin.decisions import KEPT, MOST_TEAMS, OTHERS, Decisions


def event(number: int, **more: object) -> dict[str, object]:
    return {
        "id": f"r{number}", "time": 1000.0 + number, "team": "a", "model": "m", "status": 200, "termination": "C",
        "prompt_tokens": 3, "completion_tokens": 4, "price_nano": 5, "currency": "EUR", **more,
    }  # fmt: skip


def test_the_newest_are_kept_first() -> None:
    kept = Decisions()
    kept.heard([event(number) for number in range(KEPT + 10)])
    assert [one.time for one in kept.recent()] == [1000.0 + number for number in range(KEPT + 9, 9, -1)]


def test_nothing_but_named_facts_is_taken_from_an_event() -> None:
    kept = Decisions()
    kept.heard([event(1, prompt="secret words", messages=["secret words"], reason="x" * 1000)])
    said = msgspec.json.encode(kept.recent())
    assert b"secret" not in said
    assert len(said) < 1000


def test_spend_is_summed_up_by_team_and_bounded() -> None:
    kept = Decisions()
    kept.heard([event(number, team=f"team-{number}") for number in range(MOST_TEAMS + 20)])
    kept.heard([event(0, team="team-7", price_nano=1_000)])
    spent = kept.spent(2 * MOST_TEAMS)
    assert len(spent) == MOST_TEAMS + 1
    assert spent[0] == ("team-7", 2, 14, {"EUR": 1_005})
    assert ("(others)", 20, 140, {"EUR": 100}) in spent
    assert OTHERS == "(others)"


def test_what_cannot_be_read_is_left_out() -> None:
    kept = Decisions()
    kept.heard([event(1, time=None), event(2, prompt_tokens="many"), event(3, status="fine"), event(4)])
    assert [one.time for one in kept.recent()] == [1004.0]
