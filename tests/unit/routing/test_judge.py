"""The judge of small models' answers: each check, and what is looked at when."""

from collections.abc import Sequence
from typing import Any

import pytest

from extproc.config.cascades import Cascade, JsonAnswers
from extproc.dialects.answer import AnswerEvent, Delta, Done, Failed, Opaque, Origin, Usage
from extproc.rejection import upstream_failed
from extproc.routing.json_answers import JsonShape
from extproc.routing.judge import GOOD, Judge, Reason, Verdict, checks_of

FAILURE = Failed(upstream_failed("gone"))
CALL = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def piece(text: str = "word ", *logprobs: float, **more: Any) -> Delta:
    said = {"content": [{"token": "x", "logprob": value} for value in logprobs]} if logprobs else None
    return Delta(0, text, logprobs=said, **more)


def verdict(
    events: Sequence[AnswerEvent], stream: bool = False, asked: JsonShape | None = None, **settings: Any
) -> tuple[Verdict | None, int]:
    """What is said, and after how many events."""
    judge = Judge(checks_of(Cascade.model_validate({"first": "small", **settings}), asked, stream=stream))
    for number, event in enumerate(events, 1):
        said = judge.see(event)
        if said is not None:
            return said, number
    return None, len(events)


@pytest.mark.parametrize(
    ("events", "settings", "said"),
    [
        ([piece("fine")], {}, GOOD),
        ([], {}, Reason.TOO_SHORT),
        ([piece("")], {"min_chars": 0}, GOOD),
        ([piece("fine")], {"min_chars": 5}, Reason.TOO_SHORT),
        ([piece("fine")], {"max_chars": 3}, Reason.TOO_LONG),
        ([piece("", tool_calls=CALL)], {"min_chars": 5}, GOOD),
        ([piece("I\u2019m unab"), piece("LE to say")], {}, Reason.REFUSED),
        ([piece("I'm unable to say")], {"refusals": ()}, GOOD),
        ([piece("x" * 200 + "I'm unable to say")], {}, GOOD),
        ([piece("", refusal="no")], {}, Reason.REFUSED),
        ([piece("a", -0.1), piece("b", -0.9)], {"min_logprob": -0.5}, GOOD),
        ([piece("a", -0.1), piece("b", -0.91)], {"min_logprob": -0.5}, Reason.UNSURE),
        ([piece("a", -9999.0), *[piece("b", 0.0)] * 99], {"min_logprob": -1.0}, GOOD),
        ([piece("a", 5.0), piece("b", -1.1)], {"min_logprob": -0.5}, Reason.UNSURE),
        ([piece("a", float("nan"))], {"min_logprob": -0.5}, Reason.NO_LOGPROBS),
        ([piece("a")], {"min_logprob": -0.5}, Reason.NO_LOGPROBS),
        ([Delta(0, "a b", logprobs={"token_logprobs": [None, -0.2]})], {"min_logprob": -0.5}, GOOD),
        ([Delta(0, "a", logprobs={"content": "x", "token_logprobs": 7})], {"min_logprob": -1}, Reason.NO_LOGPROBS),
        ([], {"min_logprob": -0.5}, Reason.TOO_SHORT),
        ([piece("fine"), FAILURE], {}, Reason.FAILED),
    ],
)
def test_a_whole_answer(events: list[AnswerEvent], settings: dict[str, Any], said: Verdict) -> None:
    if "refusals" in settings:
        settings["refusals"] = tuple(settings["refusals"])
    assert verdict([Origin("x", "up"), *events, Usage(1, 1), Opaque(b":"), Done()], **settings)[0] == said


OBJECT = JsonShape(is_object=True)


@pytest.mark.parametrize(
    ("text", "asked", "settings", "said"),
    [
        ("plain", None, {}, GOOD),
        ("plain", OBJECT, {}, Reason.NOT_JSON),
        ("[]", OBJECT, {}, Reason.NOT_JSON),
        ("{}", OBJECT, {}, GOOD),
        ("plain", OBJECT, {"json_answers": JsonAnswers.NEVER}, GOOD),
        ("plain", None, {"json_answers": JsonAnswers.ALWAYS}, Reason.NOT_JSON),
        ("[]", None, {"json_answers": JsonAnswers.ALWAYS}, GOOD),
        ("[]", None, {"json_schema": {"type": "object"}}, Reason.SCHEMA),
        ("{}", JsonShape(schemas=({"required": ["a"]},)), {"json_schema": {"type": "object"}}, Reason.SCHEMA),
        ('{"a": 1}', JsonShape(schemas=({"required": ["a"]},)), {"json_schema": {"type": "object"}}, GOOD),
    ],
)
def test_json(text: str, asked: JsonShape | None, settings: dict[str, Any], said: Verdict) -> None:
    assert verdict([piece(text[:2]), piece(text[2:]), Done()], asked=asked, **settings)[0] == said
    held = [piece(text[:2]), *[piece("")] * 99, piece(text[2:]), Done()]
    found, at = verdict(held, stream=True, asked=asked, hold_tokens=1, **settings)
    assert found == said
    wants_json = settings.get("json_answers") is not JsonAnswers.NEVER and (asked is not None or bool(settings))
    assert at == (len(held) if wants_json else 1)


def test_a_stream_is_judged_by_its_beginning() -> None:
    good, bad = [piece("a", -0.1)] * 3, [piece("b", -5.0)] * 30
    assert verdict([*good, *bad, Done()], stream=True, hold_tokens=3, min_logprob=-0.5) == (GOOD, 3)
    assert verdict([*good, *bad, Done()], stream=True, hold_tokens=4, min_logprob=-0.5) == (Reason.UNSURE, 4)
    assert verdict([*good, Done()], stream=True, hold_tokens=9, min_logprob=-0.5) == (GOOD, 4)
    assert verdict([*good, FAILURE], stream=True, hold_tokens=9, min_logprob=-0.5) == (Reason.FAILED, 4)
    assert verdict(good, stream=True, hold_tokens=9) == (None, 3)


def test_a_server_that_never_ends_is_not_waited_for() -> None:
    endless = [piece("x" * (1 << 20))] * 9
    assert verdict(endless, asked=OBJECT, stream=True) == (Reason.TOO_LONG, 5)


def test_tokens_are_those_of_which_the_server_speaks_or_pieces() -> None:
    several = piece("a b c", -0.1, -0.1, -9.0)
    assert verdict([several], stream=True, hold_tokens=2, min_logprob=-0.5) == (GOOD, 1)
    assert verdict([piece(""), piece("a"), piece("b")], stream=True, hold_tokens=2) == (GOOD, 3)
