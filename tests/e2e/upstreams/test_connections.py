"""Connections that are refused, dropped or silent; and pools of which one cluster is left."""

import contextlib
import pathlib
from collections import Counter

import httpx
import pytest

from tests.helpers.errors import assert_openai_error
from tests.helpers.failing import BUSY, OVER, TWO, Breaking, World, receive
from tests.helpers.scripted_upstream import Call, ScriptedUpstream, answers, drip, hang, hang_up, stream, whole
from tests.helpers.services import Upstreams, served


def test_nobody_there(world: World) -> None:
    with world.books.accounted() as entries:
        answer = world.ask("nobody")
    assert answer.status == 503
    assert_openai_error(answer.headers, answer.json(), 503, "overloaded")
    assert entries.outcomes() == [(*BUSY, 503)]


def test_a_connection_that_is_dropped_instead_of_an_answer(world: World) -> None:
    world.upstream.script = hang_up
    with world.books.accounted() as entries:
        answer = world.ask()
    assert answer.status == 503
    assert_openai_error(answer.headers, answer.json(), 503, "overloaded")
    assert entries.outcomes() == [(*BUSY, 503)]
    assert len(world.upstream.seen) == 1  # what may have begun is not tried again


def test_an_answer_that_breaks_off_before_anything_was_said(world: World) -> None:
    """Its head had come, which the gateway holds back until there is something to say."""
    world.upstream.script = stream(then=hang_up)
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert answer.status in {0, 502, 503}
    assert entries.only["termination"] in {"UPSTREAM_ERROR", "CANCELLED"}


def cut_off(call: Call) -> None:
    call.start(200, "application/json", "content-length: 1000")
    call.write(whole())
    call.hang_up()


def test_a_whole_answer_that_breaks_off_is_never_taken_for_whole(world: World) -> None:
    world.upstream.script = cut_off
    with world.books.accounted() as entries:
        answer = world.ask()
    assert answer.status in {0, 502, 503}
    assert entries.only["termination"] in {"UPSTREAM_ERROR", "CANCELLED"}


def test_a_stream_whose_server_dies_is_broken_off(world: World) -> None:
    with world.books.accounted() as entries, pytest.raises(httpx.RemoteProtocolError):
        receive(world, Breaking(then=hang_up))
    assert entries.outcomes() == [("CANCELLED", "", 200)]
    assert entries.only["completion_tokens"] == 2


def test_a_server_that_says_nothing_is_given_up(world: World) -> None:
    world.upstream.script = hang
    before = world.upstream.left
    with world.books.accounted() as entries:
        answer = world.ask()
    assert answer.status == 504
    assert_openai_error(answer.headers, answer.json(), 504, "upstream_error")
    assert entries.outcomes() == [(*OVER, 504)]
    assert world.upstream.was_left(before)


def test_a_stream_that_falls_silent_is_broken_off(world: World) -> None:
    world.upstream.script = stream(*TWO, then=hang)
    before = world.upstream.left
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert (answer.status, answer.whole) == (200, False)
    assert b"[DONE]" not in answer.body
    assert entries.only["completion_tokens"] == 2
    assert world.upstream.was_left(before)


def test_a_stream_without_an_end_is_ended(world: World) -> None:
    world.upstream.script = drip
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert (answer.status, answer.whole) == (200, False)
    assert entries.only["termination"] in {"CANCELLED", "UPSTREAM_ERROR"}
    assert entries.only["completion_tokens"] > 10


def test_the_other_cluster_serves_what_one_refuses(world: World) -> None:
    world.pair[0].script = answers(503, b"{}")
    with world.books.accounted(8) as entries:
        assert {world.ask("pair").status for _ in range(8)} == {200}
    assert Counter(entries.outcomes()) == {("COMPLETED", "", 200): 8}
    assert len(world.pair[1].seen) == 8


def test_the_other_cluster_serves_while_one_is_down(tmp_path: pathlib.Path) -> None:
    with contextlib.closing(ScriptedUpstream()) as stays:
        dying = ScriptedUpstream()
        with served(tmp_path / "gateway", Upstreams(pair=(dying.port, stays.port))) as gateway:
            world = World(gateway, stays, (dying, stays))
            with world.books.accounted(6):
                assert {world.ask("pair").status for _ in range(6)} == {200}
            dying.close()
            with world.books.accounted(6) as entries:
                assert {world.ask("pair").status for _ in range(6)} == {200}
            assert {event["termination"] for event in entries.events} == {"COMPLETED"}
