"""However an answer is cut into pieces, and whatever the small and the large model do: the verdict is the same, the
client gets one answer or one error, never a word of two, and never a log-probability that nobody asked for; and what is
charged is the sum of both."""

from __future__ import annotations

import functools
import itertools
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.config.cascades import Cascade as CascadeConfig
from extproc.config.cascades import LargeFails
from extproc.dialects.answer import AnswerEvent, Delta, Done
from extproc.routing.judge import GOOD, Judge, checks_of
from tests.helpers.cascaded import CONFIG, answered, asked, asks, small_first
from tests.helpers.cascades import SURE, UNSURE, piece, whole
from tests.helpers.journeys import Inside
from tests.property.test_fallback import JSON, SECOND, SSE, Said, Scripted, cut, shown

ERROR = b'data: {"error":{"message":"on fire"}}\n\n'
END = piece("", None, "stop") + b"data: [DONE]\n\n"
WORDS = ("first ", "word ", "and ", "more ", "first")
SMALL: dict[str, tuple[Said, Said]] = {  # asked for a whole answer, and for a stream
    "sure": (
        (200, JSON, whole(WORDS, SURE, (7, 5))),
        (200, SSE, b"".join(piece(word, SURE) for word in WORDS) + END),
    ),
    "unsure": (
        (200, JSON, whole(WORDS, UNSURE, (7, 5))),
        (200, SSE, b"".join(piece(word, UNSURE) for word in WORDS) + END),
    ),
    "refuses": ((503, JSON, b"{}"),) * 2,
    "breaks while held": ((200, JSON, b"{"), (200, SSE, piece("first", SURE) + ERROR)),
    "breaks later": ((200, JSON, b"{"), (200, SSE, b"".join(piece(word, SURE) for word in WORDS) + ERROR)),
}


@functools.cache
def inside_with(shows: LargeFails) -> Inside:
    with tempfile.TemporaryDirectory() as directory:
        return small_first(Path(directory), CONFIG.model_copy(update={"on_large_failure": shows}))


@settings(max_examples=200, deadline=None)
@given(
    small=st.sampled_from(sorted(SMALL)),
    large=st.sampled_from([*sorted(SECOND), "is not there"]),
    lost=st.booleans(),
    streams=st.booleans(),
    shows=st.sampled_from(LargeFails),
    small_cuts=st.lists(st.integers(0, 900), max_size=5),
    large_cuts=st.lists(st.integers(0, 500), max_size=4),
)
async def test_one_answer(
    small: str, large: str, lost: bool, streams: bool, shows: LargeFails, small_cuts: list[int], large_cuts: list[int]
) -> None:
    calls = Scripted(None if large == "is not there" else SECOND[large][streams], large_cuts, lost)
    inside = inside_with(shows)
    inside.usage.events.clear()
    asks(inside, calls)
    status, kind, said = SMALL[small][streams]
    replies = await inside.exchange([*asked(streams), *answered(*cut(said, small_cuts), status=status, kind=kind)])

    status, answer, ends = shown(replies)
    (event,) = inside.usage.events
    kept = event["cascade"] == "frugal/kept"
    # What breaks in the same breath as its verdict was not shown yet.
    good = small == "sure" or (small == "breaks later" and streams and kept and event["cascade_reason"] == "")
    assert ends == 1
    assert event["status"] == status
    assert not inside.usage.owed
    assert not (b"first" in answer and b"second" in answer)
    assert b'"logprobs":{' not in answer
    assert calls.asked == (0 if good else 1)
    assert event["cascade"] in ("frugal/kept", "frugal/escalated")
    assert (event["model"], event["tried_model"]) == ("writer", "talker")
    if good:
        assert (event["cascade"], event["cascade_reason"], b"first" in answer) == ("frugal/kept", "", True)
    elif b"first" in answer:
        assert (event["cascade_reason"], shows, small) == ("large_failed", LargeFails.ANSWER, "unsure")
    if b"second" in answer:
        assert (event["cascade"], event["pool"]) == ("frugal/escalated", "triton")
    assert not kept or b"first" in answer
    if large == "good" and not lost and not good:
        assert (event["termination"], event["completion_tokens"]) == ("COMPLETED", 3)
        assert (event["tried_tokens"] > 0) is (small != "refuses" and (streams or not small.startswith("breaks")))


PIECES = st.lists(
    st.builds(
        lambda text, values: Delta(0, text, logprobs={"content": [{"logprob": value} for value in values]}),
        st.text(alphabet="ab I'munabletohelp", max_size=6),
        st.lists(st.floats(-8, 0), max_size=3),
    ),
    max_size=30,
)


@settings(max_examples=200)
@given(PIECES, st.integers(1, 20), st.data())
def test_the_verdict_does_not_depend_on_how_tokens_are_packed(
    pieces: list[Delta], hold_tokens: int, data: st.DataObject
) -> None:
    """One token after the other, or several in a piece: the same tokens decide. (Texts are judged up to the end of the
    piece in which the last of them is.)"""
    config = CascadeConfig(first="small", min_logprob=-3.0, hold_tokens=hold_tokens, refusals=(), min_chars=0)
    tokens = [entry for one in pieces for entry in (one.logprobs or {})["content"]]
    edges = sorted(data.draw(st.sets(st.integers(0, len(tokens)))) | {0, len(tokens)})
    packed: list[AnswerEvent] = [
        Delta(0, "x", logprobs={"content": tokens[start:end]}) for start, end in itertools.pairwise(edges)
    ]
    single: list[AnswerEvent] = [Delta(0, "x", logprobs={"content": [token]}) for token in tokens]
    assert judged(config, [*packed, Done()]) == judged(config, [*single, Done()])


def judged(config: CascadeConfig, said: list[AnswerEvent]) -> object:
    judge = Judge(checks_of(config, None, stream=True))
    verdicts = (judge.see(event) for event in said)
    return next(verdict for verdict in verdicts if verdict is not None)


def test_the_properties_can_tell() -> None:
    sure: list[AnswerEvent] = [Delta(0, "x", logprobs={"content": [{"logprob": -0.1}]}), Done()]
    assert judged(CONFIG, sure) is GOOD
