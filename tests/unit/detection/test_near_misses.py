"""The guard: what it refuses, for which reason, and what it lets pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.detection.near_misses import NearMiss, refusal
from tests.helpers.semantic import pairs


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("Give me 5 ideas", "Give me 6 ideas", NearMiss.NUMBER),
        ("Give me five ideas", "Give me twenty-five ideas", NearMiss.NUMBER),
        ("the third chapter", "the fourth chapter", NearMiss.NUMBER),
        ("Python 3.11 news", "Python 3.12 news", NearMiss.NUMBER),
        ("Print page three in two copies", "Print page two in three copies", NearMiss.NUMBER),
        ("Wait 5 minutes, then walk 9 miles", "Wait 9 minutes, then walk 5 miles", NearMiss.NUMBER),
        ("Run 5 km", "Run 5 miles", NearMiss.UNIT),
        ("Is it 20 % off?", "Is it 20 dollars off?", NearMiss.UNIT),
        ("Are you open on Monday?", "Are you open on Tuesday?", NearMiss.DATE),
        ("Wake me at 7 am", "Wake me at 7 pm", NearMiss.DATE),
        ("What happened in May?", "What happened in June?", NearMiss.DATE),
        ('Define "apt"', 'Define "act"', NearMiss.QUOTATION),
        ("What does `a[0]` do?", "What does `a[1]` do?", NearMiss.CODE),
        ("What does foo_bar do?", "What does foo_baz do?", NearMiss.CODE),
        ("What does --force do?", "What does --forget do?", NearMiss.CODE),
        ("Delete /etc/hosts now", "Delete /etc/passwd now", NearMiss.CODE),
        ("Is it true that Ann left?", "Is it true that Bob left?", NearMiss.NAME),
        ("How do I sort in python?", "How do I sort in ruby?", NearMiss.KIND),
        ("Is water wet?", "Is water not wet?", NearMiss.NEGATION),
        ("Why does it work?", "Why doesn't it work?", NearMiss.NEGATION),
        ("enable 2FA", "disable 2FA", NearMiss.OPPOSITE),
        ("Turn the light on", "Turn the light off", NearMiss.OPPOSITE),
        ("Turn the light on", "disable the light", NearMiss.OPPOSITE),
        ("How do I connect it?", "How do I disconnect it?", NearMiss.OPPOSITE),
        ("What is the fastest car?", "What is the slowest car?", NearMiss.COMPARISON),
        ("List all rivers here", "List some rivers here", NearMiss.QUANTITY),
        ("at least 10 words", "at most 10 words", NearMiss.QUANTITY),
        ("Who may vote?", "Who must vote?", NearMiss.MODALITY),
        ("Who built it?", "When was it built?", NearMiss.QUESTION),
        ("How many cups?", "How long does it take?", NearMiss.QUESTION),
        ("a train from Paris to London", "a train from London to Paris", NearMiss.ORDER),
        ("from paris to london", "from london to paris", NearMiss.ORDER),
        ("dogs chase cats", "cats chase dogs", NearMiss.ORDER),
        ("Does Ann love Bob?", "Does Bob love Ann?", NearMiss.ORDER),
        ("Copy the file without renaming it", "Rename the file without copying it", NearMiss.ORDER),
        ("Is a whale bigger than a shark?", "Is a shark bigger than a whale?", NearMiss.ORDER),
        ("What is the weather like in the city?", "Wie ist das Wetter in der Stadt?", NearMiss.LANGUAGE),
        ("weather", "погода", NearMiss.LANGUAGE),
        ("x" * 5000, "y", NearMiss.LENGTH),
    ],
)
def test_what_is_refused(one: str, other: str, reason: NearMiss) -> None:
    assert refusal(one, other) is reason
    assert refusal(other, one) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the capital of France?", "Tell me the capital of France, please"),
        ("a train from Paris to London", "a train to London from Paris"),
        ("Give me five ideas", "Give me 5 ideas"),
        ("It costs 1,000 euros", "it costs 1000 EUR"),
        ("How do I turn off wifi?", "how can i disable wifi"),
        ("What's your name?", "what is your name"),
        ("When was it built?", "In which year was it built?"),
        ("Who beat Ann?", "By whom was Ann beaten?"),
        ("no more than 100 words", "at most 100 words"),
        ("Compare Ann and Bob", "Compare Bob and Ann"),
        ("Print page 3 in 2 copies", "Make 2 copies of page 3"),
        ("Copy the file without renaming it", "Without renaming the file, copy it"),
    ],
)
def test_what_passes(one: str, other: str) -> None:
    assert refusal(one, other) is None
    assert refusal(other, one) is None


def test_most_paraphrases_written_by_hand_pass_and_most_near_misses_do_not() -> None:
    """Not how good it is (docs/semantic-cache.md says that), but that nothing made it much worse."""
    found = pairs()
    passed = {same: [refusal(p.one, p.other) is None for p in found if p.same is same] for same in (True, False)}
    assert sum(passed[True]) / len(passed[True]) > 0.85
    assert sum(passed[False]) / len(passed[False]) < 0.5


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_is_judged_and_in_both_directions_alike(one: str, other: str) -> None:
    assert (refusal(one, other) is None) == (refusal(other, one) is None)
    assert refusal(one, one) is None


WORDS = st.lists(st.sampled_from("how do i the cat 5 7 not to from Ann Bob enable all km %".split()), max_size=12)  # noqa: SIM905


@given(WORDS, WORDS)
def test_texts_of_telling_words_are_judged_alike_in_both_directions(one: list[str], other: list[str]) -> None:
    assert (refusal(" ".join(one), " ".join(other)) is None) == (refusal(" ".join(other), " ".join(one)) is None)
