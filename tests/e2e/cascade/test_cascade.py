"""A small model first: its answer is shown if it is good enough, and nobody sees it if not."""

import json
import threading
from typing import Any

import httpx
import pytest

from tests.helpers.cascades import HOLD_TOKENS, SURE, UNSURE, World, piece, says
from tests.helpers.failing import CHAT, ERROR
from tests.helpers.failover import said
from tests.helpers.scripted_upstream import Call, Script, answers, hang, hang_up
from tests.helpers.services import on_both_servers

SMALL_NANO = 7 * 100 + 3 * 400
LARGE_NANO = 9 * 2_500 + 5 * 10_000
WHOLE_OR_STREAM = pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
LOW: Script = says("small ", "talk ", "goes ", "on ", "here", logprob=UNSURE)


@on_both_servers
@WHOLE_OR_STREAM
def test_a_good_answer_is_shown(world: World, streams: bool) -> None:
    with world.books.accounted() as entries:
        answer = world.ask(stream=streams)
    assert (answer.status, said(answer), answer.whole) == (200, "small talk goes on here", True)
    assert (answer.headers["x-extproc-cascade"], answer.headers["x-extproc-model"]) == ("kept", "small")
    assert answer.headers["x-extproc-pool"] == "small"
    assert b'"logprobs":{' not in answer.body.replace(b" ", b"")
    (seen,) = world.small.seen
    assert json.loads(seen.body)["logprobs"] is True
    assert not world.large.seen
    facts = entries.only
    assert (facts["model"], facts["served_model"], facts["pool"]) == ("large", "small", "small")
    assert (facts["cascade"], facts["cascade_reason"], facts["tried_model"]) == ("frugal/kept", "", "small")
    assert (facts["prompt_tokens"], facts["completion_tokens"], facts["price_nano"]) == (7, 3, SMALL_NANO)
    assert "tried_nano" not in facts


@on_both_servers
@WHOLE_OR_STREAM
def test_an_unsure_answer_is_never_seen(world: World, streams: bool) -> None:
    world.small.script = LOW
    before = world.books.metric("extproc_cascade_total", cascade="frugal", outcome="escalated", reason="unsure")
    with world.books.accounted() as entries:
        answer = world.ask(stream=streams)
    assert (answer.status, said(answer), answer.whole) == (200, "a large word", True)
    assert (answer.headers["x-extproc-cascade"], answer.headers["x-extproc-model"]) == ("escalated", "large")
    assert answer.headers["x-extproc-pool"] == "large"
    (seen,) = world.large.seen
    assert "logprobs" not in json.loads(seen.body)
    facts = entries.only
    assert (facts["termination"], facts["model"], facts["pool"]) == ("COMPLETED", "large", "large")
    assert not facts.get("fallback_from")
    assert (facts["cascade"], facts["cascade_reason"], facts["tried_model"]) == ("frugal/escalated", "unsure", "small")
    assert (facts["prompt_tokens"], facts["completion_tokens"]) == (9, 5)
    if not streams:  # of a stream nobody has heard more than what was judged
        assert (facts["tried_tokens"], facts["tried_nano"]) == (10, SMALL_NANO)
    assert facts["tried_nano"] > 0
    assert facts["price_nano"] == LARGE_NANO + facts["tried_nano"]
    after = world.books.metric("extproc_cascade_total", cascade="frugal", outcome="escalated", reason="unsure")
    assert after == before + 1


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
NOT_GOOD: dict[str, tuple[Script, dict[str, Any]]] = {
    "failed": (answers(503, ERROR), {}),
    "refused": (says("I'm ", "unable to ", "do ", "this."), {}),
    "too_short": (says(""), {}),
    "no_logprobs": (says("one ", "two ", "three ", "four ", logprob=None), {}),
    "not_json": (says("{", '"n": ', "1"), {"response_format": {"type": "json_object"}}),
    "schema": (
        says("{", '"n": ', '"1"', "}"),
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
    ),
}


@WHOLE_OR_STREAM
@pytest.mark.parametrize("reason", NOT_GOOD)
def test_why_it_is_not_good_enough(world: World, reason: str, streams: bool) -> None:
    world.small.script, more = NOT_GOOD[reason]
    with world.books.accounted() as entries:
        answer = world.ask(stream=streams, **more)
    assert (answer.status, said(answer), answer.whole) == (200, "a large word", True)
    assert (entries.only["cascade"], entries.only["cascade_reason"]) == ("frugal/escalated", reason)
    if reason == "failed":
        assert (entries.only["tried_nano"], entries.only["price_nano"]) == (0, LARGE_NANO)


@WHOLE_OR_STREAM
@pytest.mark.parametrize("reason", ["not_json", "schema"])
def test_json_that_fits_is_shown(world: World, reason: str, streams: bool) -> None:
    world.small.script = says("{", '"n": ', "1", "}")
    answer = world.ask(stream=streams, **NOT_GOOD[reason][1])
    assert (said(answer), answer.headers["x-extproc-cascade"]) == ('{"n": 1}', "kept")


@WHOLE_OR_STREAM
def test_the_large_model_fails(world: World, streams: bool) -> None:
    """Its stand-in answers; without one the small model's answer is better than none, unless it shall not be shown."""
    world.small.script = LOW
    world.large.script = answers(503, ERROR)
    with world.books.accounted() as entries:
        answer = world.ask(stream=streams)
    assert (said(answer), answer.headers["x-extproc-pool"]) == ("spare word", "spare")
    assert (entries.only["fallback_from"], entries.only["cascade"]) == ("large", "frugal/escalated")
    world.spare.script = hang_up
    with world.books.accounted() as entries:
        answer = world.ask(stream=streams)
    assert (said(answer), answer.headers["x-extproc-cascade"]) == ("small talk goes on here", "kept")
    assert answer.headers["x-extproc-model"] == "small"
    assert (entries.only["cascade"], entries.only["cascade_reason"]) == ("frugal/kept", "large_failed")
    assert (entries.only["price_nano"], entries.only["served_model"]) == (SMALL_NANO, "small")
    with world.books.accounted() as entries:
        answer = world.ask(stream=streams, headers="x-cascade: strict\r\n")
    assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert answer.headers["x-extproc-cascade"] == "escalated"
    assert entries.outcomes() == [("UPSTREAM_ERROR", "upstream_error", 502)]
    assert (entries.only["cascade"], entries.only["price_nano"]) == ("strict/escalated", 0)
    assert entries.only["tried_tokens"] > 0


@on_both_servers
def test_a_stream_is_given_up_before_its_end(world: World) -> None:
    """The verdict does not wait for the small model, which is left when the large one has answered."""
    left = world.small.left

    def unsure(call: Call) -> None:
        call.start(200, "text/event-stream")
        for number in range(HOLD_TOKENS):
            call.chunk(piece(f"w{number} ", UNSURE))
        call.wait_until_left()

    world.small.script = unsure
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert (said(answer), answer.whole) == ("a large word", True)
    assert world.small.was_left(left)
    facts = entries.only
    assert facts["tried_tokens"] > HOLD_TOKENS  # counted here, because nobody said
    assert facts["price_nano"] == LARGE_NANO + facts["tried_nano"]


def test_a_stream_that_was_released_goes_on(world: World) -> None:
    """Whatever comes after that is not judged any more, and a failure is a failure."""
    seen = threading.Event()

    def begins(call: Call) -> None:
        call.start(200, "text/event-stream")
        for _ in range(HOLD_TOKENS):
            call.chunk(piece("many words, more than the filter waits for " * 10, SURE))
        assert seen.wait(10)
        call.chunk(piece("unsure" + " and so on" * 20, UNSURE))
        call.chunk(b"data: " + ERROR + b"\n\n")
        call.chunk(b"")

    world.small.script = begins
    received = b""
    body = {"model": "large", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with (
        world.books.accounted() as entries,
        world.gateway.client() as client,
        client.stream("POST", CHAT, json=body) as response,
    ):
        for data in response.iter_raw():
            received += data
            if b"many words" in received:
                seen.set()
    assert b"unsure" in received
    assert b'"logprobs":{' not in received.replace(b" ", b"")
    assert b'"error"' in received
    assert not world.large.seen
    assert (entries.only["cascade"], entries.only["termination"]) == ("frugal/kept", "UPSTREAM_ERROR")


def test_it_fails_while_it_is_held(world: World) -> None:
    def fails(call: Call) -> None:
        call.start(200, "text/event-stream")
        call.chunk(piece("one ", SURE))
        call.chunk(b"data: " + ERROR + b"\n\n")
        call.chunk(b"")

    world.small.script = fails
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert (said(answer), answer.whole) == ("a large word", True)
    assert (entries.only["cascade_reason"], entries.only["tried_tokens"] > 0) == ("failed", True)


def leave(world: World, asked: threading.Event) -> None:
    body = {"model": "large", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with world.gateway.client() as client:
        sent = client.build_request("POST", CHAT, json=body, timeout=httpx.Timeout(20, read=0.2))
        with pytest.raises(httpx.ReadTimeout):
            client.send(sent)
    assert asked.is_set()


@on_both_servers
def test_the_client_leaves_while_the_small_model_is_judged(world: World) -> None:
    left, asked = world.small.left, threading.Event()

    def slow(call: Call) -> None:
        call.start(200, "text/event-stream")
        call.chunk(piece("one ", SURE))
        asked.set()
        call.wait_until_left()

    world.small.script = slow
    with world.books.accounted() as entries:
        leave(world, asked)
    assert world.small.was_left(left)
    assert not world.large.seen
    facts = entries.only
    assert (facts["termination"], facts["cascade"], facts["served_model"]) == ("CANCELLED", "frugal/left", "small")
    assert facts["completion_tokens"] == 2
    assert facts["price_nano"] == facts["prompt_tokens"] * 100 + 2 * 400


@on_both_servers
def test_the_client_leaves_while_the_large_model_is_asked(world: World) -> None:
    left, asked = world.large.left, threading.Event()

    def slow(call: Call) -> None:
        asked.set()
        hang(call)

    world.small.script, world.large.script = LOW, slow
    with world.books.accounted() as entries:
        leave(world, asked)
    assert world.large.was_left(left)
    facts = entries.only
    assert (facts["termination"], facts["cascade"]) == ("CANCELLED", "frugal/escalated")
    assert facts["price_nano"] == facts["prompt_tokens"] * 2_500 + facts["tried_nano"]


def test_a_client_that_wants_log_probabilities_has_them(world: World) -> None:
    answer = world.ask(logprobs=True).json()
    assert answer["choices"][0]["logprobs"]["content"][0]["logprob"] == SURE


def test_what_the_small_model_can_not_take_goes_to_the_large_one(world: World) -> None:
    """Too long for its window; several answers at once, of which nobody could say which to judge."""
    before = world.books.metric("extproc_cascade_total", cascade="frugal", outcome="skipped", reason="unfit")
    for answer in (world.ask(text="word " * 300), world.ask(n=2)):
        assert (answer.status, "x-extproc-cascade" in answer.headers) == (200, False)
    assert not world.small.seen
    assert len(world.large.seen) == 2
    after = world.books.metric("extproc_cascade_total", cascade="frugal", outcome="skipped", reason="unfit")
    assert after == before + 2


@WHOLE_OR_STREAM
def test_policies_act_on_the_answer_that_is_shown(world: World, streams: bool) -> None:
    world.small.script = says("buy ", "it ", "from ", "Glo", "bex ", "today")
    assert "Globex" not in said(world.ask(stream=streams))
    world.small.script = LOW
    world.large.script = says("call ", "Glo", "bex ", "now", logprob=None)
    answer = said(world.ask(stream=streams))
    assert answer.startswith("call ")
    assert "Globex" not in answer
