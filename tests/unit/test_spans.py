"""Which exchanges have a trace, and which of a policy's doings become spans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.telemetry.spans import TOOK_TIME_S, begun

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_sampled_parent_begins_a_trace_below_it() -> None:
    trace = begun(f"00-{TRACE}-{PARENT}-01")
    assert trace is not None
    assert (trace.trace_id.hex(), trace.parent_id.hex()) == (TRACE, PARENT)


@pytest.mark.parametrize(
    "traceparent",
    ["", "00", f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-02", f"01-{TRACE}-{PARENT}-01",
     f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01-x", f"00-{TRACE}-{PARENT}-01\n"],
)  # fmt: skip
def test_anything_else_begins_none(traceparent: str) -> None:
    assert begun(traceparent) is None


@given(st.text(max_size=80))
def test_no_text_is_an_error(text: str) -> None:
    begun(text)


def test_only_what_took_time_or_decided_is_kept() -> None:
    trace = begun(f"00-{TRACE}-{PARENT}-01")
    assert trace is not None
    trace.decided("quick", 1.0, 1.0 + TOOK_TIME_S / 2, "")
    trace.decided("slow", 1.0, 1.5, "")
    trace.decided("guard", 2.0, 2.0, "reject")
    assert [(step.policy, step.verdict) for step in trace.steps] == [("slow", ""), ("guard", "reject")]


def test_work_on_an_answers_pieces_is_one_span_with_the_time_it_was_busy() -> None:
    trace = begun(f"00-{TRACE}-{PARENT}-01")
    assert trace is not None
    for at_s in (1.0, 2.0, 3.0):
        trace.passed("redact", at_s, at_s + 0.25)
    (step,) = trace.answering.values()
    assert (step.began_s, step.ended_s, step.busy_s) == (1.0, 3.25, 0.75)
