"""Streams that break once the client has some of them."""

import json

import openai
import pytest

from tests.helpers.failing import ERROR, OVER, Breaking, World, read_texts, receive
from tests.helpers.scripted_upstream import content, stream

ON = (content("three", "stop"), b"data: [DONE]\n\n")
BROKEN: dict[str, tuple[bytes, ...]] = {
    "an error": (b"data: " + ERROR + b"\n\n",),
    "an error, and on it goes": (b"data: " + ERROR + b"\n\n", *ON),
    "the end": (),
    "garbage": (b"data: {nonsense}\n\n",),
    "garbage, and on it goes": (b"data: {nonsense}\n\n", *ON),
    "half an event": (content("three")[:-10],),
    "an endless event": (b"data: " + b"x" * (9 << 20),),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_stream_that_breaks_ends_in_an_error_event(world: World, case: str) -> None:
    with world.books.accounted() as entries:
        received = receive(world, Breaking(*BROKEN[case]))
    *pieces, last = [json.loads(line[6:]) for line in received.split(b"\n\n") if line]
    assert [piece["choices"][0]["delta"]["content"] for piece in pieces] == ["one ", "two"]
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert entries.outcomes() == [(*OVER, 200)]
    assert entries.only["completion_tokens"] == 2


def test_the_official_client_raises_in_mid_stream(world: World) -> None:
    world.upstream.script = script = Breaking(*BROKEN["an error"])
    seen: list[str] = []

    def on_text(texts: list[str]) -> None:
        seen[:] = texts
        if texts == ["one ", "two"]:
            script.now.set()

    with world.books.accounted(), pytest.raises(openai.APIError) as caught:
        read_texts(world.gateway.openai(), "openai", "", on_text)
    assert seen == ["one ", "two"]
    assert "on fire" in caught.value.message


def test_a_server_that_only_keeps_the_line_open_is_heard_out(world: World) -> None:
    world.upstream.script = stream(b": hello\n\n", b": still here\n\n")
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert (answer.status, answer.whole) == (200, True)
    assert b'"code":"upstream_error"' in answer.body
    assert entries.outcomes() == [(*OVER, 200)]
