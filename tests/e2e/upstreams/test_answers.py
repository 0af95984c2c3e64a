"""What a model server may answer, and what the client makes of it."""

import pytest

from tests.helpers.errors import assert_kserve_error, assert_openai_error
from tests.helpers.failing import BUSY, ERROR, OVER, TWO, World
from tests.helpers.scripted_upstream import Call, Script, answers, content, stream, whole
from tests.helpers.services import on_both_servers

BAD_PARAMETER = b'{"error":{"message":"top_k is wrong","type":"x","param":"top_k","code":"nope"}}'
TEXT = "text/plain"
SSE = "text/event-stream"

OPENAI_ANSWERS: dict[str, tuple[Script, int, str | None, tuple[str, str]]] = {
    "500": (answers(500, ERROR), 502, "upstream_error", OVER),
    "500 in prose": (answers(500, b"Internal Server Error", TEXT), 502, "upstream_error", OVER),
    "500 without a body": (answers(500, b""), 502, "upstream_error", OVER),
    "500 as an event": (answers(500, b"data: " + ERROR + b"\n\n", SSE), 502, "upstream_error", OVER),
    "503": (answers(503, b"{}"), 503, "overloaded", BUSY),
    "429": (answers(429, b"{}"), 503, "overloaded", BUSY),
    "504": (answers(504, b"{}"), 504, "upstream_error", OVER),
    "400": (answers(400, BAD_PARAMETER), 400, "nope", ("UPSTREAM_ERROR", "upstream_refused")),
    "401": (answers(401, ERROR), 502, "upstream_error", OVER),
    "404": (answers(404, ERROR), 502, "upstream_error", OVER),
    "a redirect": (answers(307, b""), 502, "upstream_error", OVER),
    "no content": (lambda call: call.write(b"HTTP/1.1 204 No Content\r\n\r\n"), 502, "upstream_error", OVER),
    "an error after a 200": (answers(200, ERROR), 502, "upstream_error", OVER),
    "nothing": (answers(200, b""), 502, "upstream_error", OVER),
    "garbage": (answers(200, b"\x00\xff garbage"), 502, "upstream_error", OVER),
    "half an answer": (answers(200, whole()[:-20]), 502, "upstream_error", OVER),
    "another answer": (answers(200, b'{"object":"list","data":[]}'), 502, "upstream_error", OVER),
    "a list": (answers(200, b"[]"), 502, "upstream_error", OVER),
    "wrong types": (answers(200, b'{"choices":"none","usage":5}'), 502, "upstream_error", OVER),
    "nested deeply": (answers(200, b'{"choices":' + b"[" * 100_000), 502, "upstream_error", OVER),
    "a web page": (answers(200, b"<html>login</html>", "text/html"), 502, "upstream_error", OVER),
    "compressed": (answers(200, b"\x1f\x8b\x08\x00\x00\x00\x00\x00"), 502, "upstream_error", OVER),
}
STREAMS: dict[str, Script] = {
    "an error first": stream(b"data: " + ERROR + b"\n\n"),
    "nothing": stream(),
    "garbage": stream(b"data: {nonsense}\n\n"),
    "no events": stream(b"plain text, for ever and ever"),
    "bytes that are no text": stream(b"data: \xff\xfe\xfd\n\n"),
    "wrong types": stream(b'data: {"choices":[{"index":"x","delta":[]}]}\n\n'),
}


@pytest.mark.parametrize("case", OPENAI_ANSWERS)
@pytest.mark.parametrize("streams", [False, True])
def test_an_answer_that_is_none_becomes_an_error(world: World, case: str, streams: bool) -> None:
    world.upstream.script, status, code, outcome = OPENAI_ANSWERS[case]
    with world.books.accounted() as entries:
        answer = world.ask(stream=streams)
    assert answer.status == status, answer.body
    assert_openai_error(answer.headers, answer.json(), status, code)
    assert entries.outcomes() == [(*outcome, status)]
    assert entries.only["completion_tokens"] == 0


@pytest.mark.parametrize("case", STREAMS)
def test_a_stream_that_never_began_becomes_an_error(world: World, case: str) -> None:
    world.upstream.script = STREAMS[case]
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert answer.status == 502
    assert_openai_error(answer.headers, answer.json(), 502, "upstream_error")
    assert entries.outcomes() == [(*OVER, 502)]


TRITON_ANSWERS: dict[str, tuple[Script, int]] = {
    "a model's error": (answers(400, b'{"error":"failed"}'), 502),
    "a dead stub": (answers(400, b'{"error":"Stub process \'demo_llm_0_0\' is not healthy."}'), 503),
    "an unknown model": (answers(400, b'{"error":"Request for unknown model: \'demo_llm\' is not found"}'), 503),
    "an error after a 200": (answers(200, b'{"error":"generated more than one response"}'), 502),
    "garbage": (answers(200, b"garbage"), 502),
    "wrong types": (answers(200, b'{"text_output":5,"finish_reason":"stop"}'), 502),
    "no end": (answers(200, b'{"text_output":"x","finish_reason":"None"}'), 502),
    "given up": (answers(200, b'{"text_output":"x","finish_reason":"abort"}'), 502),
}


@pytest.mark.parametrize("case", TRITON_ANSWERS)
def test_tritons_errors_are_not_the_clients(world: World, case: str) -> None:
    world.upstream.script, status = TRITON_ANSWERS[case]
    with world.books.accounted() as entries:
        answer = world.ask("triton")
    assert answer.status == status, answer.body
    assert_openai_error(answer.headers, answer.json(), status, "overloaded" if status == 503 else "upstream_error")
    assert entries.outcomes() == [(*(BUSY if status == 503 else OVER), status)]


@pytest.mark.parametrize("status", [500, 503])
def test_kserve_errors_have_kserves_shape(world: World, status: int) -> None:
    world.upstream.script = answers(status, b'{"error":"no"}')
    with world.books.accounted() as entries:
        answer = world.infer()
    assert answer.status == {500: 502, 503: 503}[status]
    assert_kserve_error(answer.headers, answer.json(), answer.status)
    assert entries.only["termination"] == "UPSTREAM_ERROR"


@on_both_servers
def test_a_huge_answer_passes_whole(world: World) -> None:
    text = "x" * (8 << 20)
    world.upstream.script = answers(200, whole(text))
    with world.books.accounted() as entries:
        answer = world.ask()
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"]["content"] == text
    assert entries.outcomes() == [("COMPLETED", "", 200)]


def test_an_answer_beyond_all_measure_is_refused_and_not_read_on(world: World) -> None:
    def endless(call: Call) -> None:
        call.start(200, "application/json")
        for _ in range(200):
            call.chunk(b" " * (1 << 20))

    world.upstream.script = endless
    before = world.upstream.left
    with world.books.accounted() as entries:
        answer = world.ask()
    assert answer.status == 502
    assert_openai_error(answer.headers, answer.json(), 502, "upstream_error")
    assert entries.outcomes() == [(*OVER, 502)]
    assert world.upstream.was_left(before)


@on_both_servers
def test_events_in_any_pieces_are_the_same_events(world: World) -> None:
    events = b"".join((*TWO, content("", "stop"), b"data: [DONE]\n\n"))
    world.upstream.script = stream(*(bytes([byte]) for byte in events))
    with world.books.accounted() as entries:
        answer = world.ask(stream=True)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert entries.outcomes() == [("COMPLETED", "", 200)]
    assert entries.only["completion_tokens"] == 2
