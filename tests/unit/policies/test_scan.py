"""Sharing the encoder within one exchange: once per text, within a budget, the most important first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from extproc.clock import Clock
from extproc.detection.spans import Evidence, Span
from extproc.errors import DependencyError
from extproc.inference.interface import Encoding
from extproc.policies.scan import Coverage, Importance, Scan
from tests.helpers.scripted_encoder import Scripted


async def test_two_policies_that_ask_for_one_text_cost_one_pass() -> None:
    encoder = Scripted()
    scan = Scan(encoder, 10, 1.0, Clock())
    first, second = await asyncio.gather(scan.results(["hello"]), scan.results(["hello", "hello"]))
    assert encoder.given == ["hello"]
    assert first[0] == second[0] == second[1]
    assert first[0].windows[0].encoding.embedding == b"hello"
    assert first[0].complete


async def test_it_begins_before_anyone_asks() -> None:
    encoder = Scripted()
    scan = Scan(encoder, 10, 1.0, Clock())
    scan.want("hello")
    scan.begin()
    await asyncio.sleep(0)
    assert encoder.given == ["hello"]


async def test_an_empty_text_is_complete_without_the_encoder() -> None:
    encoder = Scripted()
    (scanned,) = await Scan(encoder, 10, 1.0, Clock()).results([""])
    assert (scanned.complete, scanned.injection, encoder.given) == (True, None, [])


async def test_no_more_than_the_budget_whoever_asks_and_it_says_so() -> None:
    encoder = Scripted()
    scan = Scan(encoder, 5, 1.0, Clock())
    (long,) = await scan.results(["x" * 800])
    (other,) = await scan.results(["another"])
    assert len(encoder.given) == 5
    assert (len(long.windows), long.total, long.complete) == (5, 100, False)
    assert (other.windows, other.total) == ((), 1)
    assert scan.coverage == Coverage(5, 101)


async def test_a_long_text_is_covered_evenly() -> None:
    (scanned,) = await Scan(Scripted(), 4, 1.0, Clock()).results(["x" * 800])
    quarters = {window.start * 4 // 800 for window in scanned.windows}
    assert len(quarters) >= 3


async def test_the_more_important_comes_first_when_there_is_too_much() -> None:
    encoder = Scripted()
    scan = Scan(encoder, 4, 1.0, Clock())
    scan.want("the system prompt is long")
    scan.want("a tool", Importance.TOOL_RESULT)
    scan.want("the user", Importance.LAST_USER_TURN)
    scan.begin()
    await asyncio.sleep(0)
    assert encoder.given == ["the user", "a tool"]  # half of the budget
    await scan.results(["the user"])
    assert len(encoder.given) == 4


async def test_what_rules_found_is_encoded_even_in_a_text_that_is_too_long() -> None:
    encoder = Scripted()
    text = "x" * 400 + "bad" + "x" * 400
    scan = Scan(encoder, 4, 1.0, Clock())
    scan.want(text, Importance.LAST_USER_TURN)
    scan.begin()
    scan.want(text, Importance.SUSPICIOUS, (400, 403))
    (scanned,) = await scan.results([text])
    assert scanned.injection == 1.0
    assert len(scanned.windows) == 4


@pytest.mark.parametrize("at", range(20))
async def test_entities_are_found_once_wherever_windows_overlap(at: int) -> None:
    text = "x" * at + "Bob" + "x" * (20 - at)
    (scanned,) = await Scan(Scripted(), 10, 1.0, Clock()).results([text])
    found = scanned.spans()
    if any(window.start <= at and at + 3 <= window.end for window in scanned.windows):
        assert [(span.start, span.end) for span in found] == [(at, at + 3)]
    else:
        assert found == ()


async def test_the_longer_of_two_overlapping_entities_stays() -> None:
    class Cut(Scripted):
        async def encode(self, texts: Sequence[str], deadline_s: float) -> Sequence[Encoding]:
            person, evidence = "PERSON", Evidence("encoder", "entity_head")
            cut, whole = Span(8, 10, person, 0.99, evidence), Span(0, 4, person, 0.7, evidence)
            return [Encoding(b"", spans=(cut,)), Encoding(b"", spans=(whole,))]

    (scanned,) = await Scan(Cut(), 10, 1.0, Clock()).results(["x" * 16])
    assert [(span.start, span.end) for span in scanned.spans()] == [(8, 12)]


async def test_each_who_asks_is_told_of_the_failure() -> None:
    scan = Scan(Scripted(DependencyError("encoder", "overloaded")), 10, 1.0, Clock())
    for _ in range(2):
        with pytest.raises(DependencyError, match="overloaded"):
            await scan.results(["hello"])


async def test_one_that_gives_up_does_not_stop_the_others() -> None:
    encoder = Scripted()
    encoder.open.clear()
    scan = Scan(encoder, 10, 1.0, Clock())
    hasty = asyncio.ensure_future(scan.results(["hello"]))
    patient = asyncio.ensure_future(scan.results(["hello"]))
    await asyncio.sleep(0)
    hasty.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await hasty
    encoder.open.set()
    assert (await patient)[0].complete
    assert encoder.cancelled == 0


async def test_closing_cancels_what_runs_and_lets_nothing_begin() -> None:
    encoder = Scripted()
    encoder.open.clear()
    scan = Scan(encoder, 10, 1.0, Clock())
    scan.want("hello")
    scan.begin()
    await asyncio.sleep(0)
    scan.close()
    await asyncio.sleep(0)
    assert encoder.cancelled == 1
    assert (await scan.results(["later"]))[0].windows == ()


async def test_a_failure_nobody_asked_about_is_silent() -> None:
    """Warnings are errors here: an exception that was never retrieved would be one."""
    scan = Scan(Scripted(DependencyError("encoder", "away")), 10, 1.0, Clock())
    scan.want("hello")
    scan.begin()
    await asyncio.sleep(0.01)


async def test_the_deadline_runs_from_the_beginning_of_the_exchange() -> None:
    encoder = Scripted()
    scan = Scan(encoder, 10, 0.05, Clock())
    await scan.results(["now"])
    await asyncio.sleep(0.06)
    await scan.results(["late"])
    assert encoder.deadlines[0] > 0
    assert encoder.deadlines[1] == 0
