"""A pool that fails before the first word of an answer: the next one in its list answers, and nobody pays twice."""

import json
import pathlib
import re
import stat
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.helpers.failing import BUSY, CHAT, ERROR, TENSOR
from tests.helpers.failover import World, generate, said
from tests.helpers.processes import wait_until
from tests.helpers.raw_http import Connection, exchange, request
from tests.helpers.scripted_upstream import Call, Script, answers, content, hang, hang_up, stream, whole
from tests.helpers.services import KEY, on_both_servers

TENSORS = b"{}\x00\x01\xff"
FAILURES: dict[str, Script] = {
    "503": answers(503, ERROR),
    "502": answers(502, ERROR),
    "504": answers(504, ERROR),
    "500": answers(500, ERROR),
    "500 without a body": answers(500, b""),
    "429": answers(429, ERROR),
    "hangs up": hang_up,
    "hangs": hang,
    "an error after its 200": stream(b"data: " + ERROR + b"\n\n"),
    "no answer at all": stream(),
    "redirects": answers(302, b""),
    "a word, and an error in the same breath": answers(
        200, content("one") + b"data: " + ERROR + b"\n\n", "text/event-stream"
    ),
    "garbage": answers(200, b"<html>"),
}


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", FAILURES)
def test_the_next_pool_answers(world: World, case: str, streams: bool) -> None:
    world.main.script = FAILURES[case]
    with world.books.accounted() as entries:
        answer = world.ask(stream=streams)
    assert (answer.status, said(answer), answer.whole) == (200, "hello there", True)
    assert answer.headers["x-extproc-pool"] == "spare"
    assert "retry-after" not in answer.headers
    assert len(world.spare.seen) == 1
    assert not world.small.seen
    event = entries.only
    assert (event["termination"], event["status"], event["completion_tokens"]) == ("COMPLETED", 200, 2)
    assert (event["model"], event["pool"], event["fallback_from"]) == ("main", "spare", "main")
    assert event["price_nano"] == 2 * 10_000


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
def test_another_model_in_another_dialect(world: World, streams: bool) -> None:
    world.main.script = world.spare.script = answers(503, ERROR)
    with world.books.accounted() as entries:
        answer = world.ask(stream=streams)
    assert (answer.status, said(answer)) == (200, "small talk")
    assert (answer.headers["x-extproc-pool"], answer.headers["x-extproc-model"]) == ("small", "small")
    assert b'"model":"small"' in answer.body
    (seen,) = world.small.seen
    asked = json.loads(seen.body)
    assert seen.path == "/v2/models/tiny/generate" + ("_stream" if streams else "")
    assert "Hello!" in asked["text_input"]
    assert json.loads(asked["sampling_parameters"])["max_tokens"] < 100  # what its own, smaller window leaves
    event = entries.only
    assert (event["model"], event["pool"], event["served_model"]) == ("main", "small", "small")
    assert (event["prompt_tokens"], event["completion_tokens"], event["price_nano"]) == (7, 3, 3 * 1_000)


def test_what_another_pool_can_not_carry_is_not_sent_there(world: World) -> None:
    """Too long for its window; a parameter that its dialect has no word for."""
    world.main.script = world.spare.script = answers(503, ERROR)
    before = world.books.metric("extproc_fallbacks_total", to="small", outcome="unfit")
    with world.books.accounted(2):
        assert world.ask(text="word " * 200).status == 503
        assert world.ask(tools=[{"type": "function", "function": {"name": "f"}}]).status == 503
    assert not world.small.seen
    assert world.books.metric("extproc_fallbacks_total", to="small", outcome="unfit") == before + 2


@on_both_servers
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
def test_no_pool_can_serve(world: World, streams: bool) -> None:
    """The client is told of the failure of what it asked for."""
    world.main.script = answers(503, ERROR)
    world.spare.script = hang_up
    world.small.script = answers(500, b'{"error":"other"}')
    with world.books.accounted() as entries:
        answer = world.ask(stream=streams)
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["message"]) == (503, "overloaded", "the GPU is on fire")
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["x-extproc-pool"] == "main"
    assert entries.outcomes() == [(*BUSY, 503)]
    assert (entries.only["pool"], entries.only["price_nano"]) == ("main", 0)


def test_what_the_client_is_to_blame_for_is_no_reason(world: World) -> None:
    world.main.script = answers(400, b'{"error":{"message":"no","type":"invalid_request_error","code":null}}')
    assert world.ask().status == 400
    assert not world.spare.seen


def begun(world: World, script_of: str) -> tuple[list[set[str]], Mapping[str, Any]]:
    """Ask for a stream of which one server says a word and then fails, when the client has it: what comes of it, by the
    keys of its events, and its usage event."""
    seen = threading.Event()

    def fail(call: Call) -> None:
        assert seen.wait(10)
        call.hang_up()

    getattr(world, script_of).script = stream(content("one"), then=fail)
    body = b'{"model":"main","messages":[{"role":"user","content":"x"}],"stream":true}'
    with world.books.accounted() as entries, Connection(world.gateway.port) as connection:
        connection.send(request(CHAT, body, key=KEY))
        head = connection.read_until(b'"one"') + connection.read_until(b"\n\n")
        seen.set()
        rest = connection.read_until(b"0\r\n\r\n")
    events = re.findall(rb"^data: (.*)$", head.rpartition(b"\r\n\r\n")[2] + rest, re.MULTILINE)
    return [set(json.loads(event)) & {"choices", "error"} for event in events], entries.only


def test_an_answer_that_has_begun_is_not_begun_again(world: World) -> None:
    """Envoy breaks off what it gets from a dead connection; there is no end, so nobody takes it for whole."""
    _, event = begun(world, "main")
    assert not world.spare.seen
    assert (event["termination"], event["pool"], event["completion_tokens"]) == ("CANCELLED", "main", 1)


@on_both_servers
def test_another_pool_that_dies_in_mid_stream(world: World) -> None:
    world.main.script = answers(503, ERROR)
    events, event = begun(world, "spare")
    assert events == [{"choices"}, {"error"}]
    assert not world.small.seen
    assert (event["termination"], event["status"]) == ("UPSTREAM_ERROR", 200)
    assert (event["pool"], event["completion_tokens"]) == ("spare", 1)


@on_both_servers
def test_a_client_that_leaves_ends_the_other_pools_work(world: World) -> None:
    world.main.script = answers(503, ERROR)
    world.spare.script = hang
    before = world.spare.left
    body = b'{"model":"main","messages":[{"role":"user","content":"x"}]}'
    with world.books.accounted() as entries:
        with Connection(world.gateway.port) as connection:
            connection.send(request(CHAT, body, key=KEY))
            assert wait_until(lambda: bool(world.spare.seen))
        assert world.spare.was_left(before)
    assert entries.only["termination"] == "CANCELLED"


def test_an_error_before_the_first_word_and_then_silence(world: World) -> None:
    """Nobody waits for the end of an answer that has failed."""
    world.main.script = stream(b"data: " + ERROR + b"\n\n", then=lambda call: call.wait_until_left())
    before = world.main.left
    assert said(world.ask(stream=True)) == "hello there"
    assert world.main.was_left(before)


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
def test_a_head_and_nothing_more_is_the_end(world: World, streams: bool) -> None:
    """Envoy has an answer in its hands then, and answers by itself when that breaks."""

    def dies(call: Call) -> None:
        call.start(200, "text/event-stream")
        time.sleep(0.2)  # else Envoy may see the head and the end together
        call.hang_up()

    world.main.script = dies
    with world.books.accounted() as entries:
        answer = world.ask(stream=streams)
    assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert entries.only["termination"] == "CANCELLED"
    assert not world.spare.seen


@pytest.mark.parametrize(("says", "told"), [("7", "7"), ("0", "1"), ("86400", "120"), ("soon", "1")])
def test_a_busy_server_says_when_to_come_back(world: World, says: str, told: str) -> None:
    def busy(call: Call) -> None:
        call.start(429, "application/json", f"retry-after: {says}\r\ncontent-length: {len(ERROR)}")
        call.write(ERROR)

    world.main.script = busy
    answer = world.ask("lonely")
    assert (answer.status, answer.headers["retry-after"]) == (503, told)


def test_tensors_that_nobody_reads(world: World) -> None:
    world.main.script = answers(503, b'{"error":"busy"}')

    def infers(call: Call) -> None:
        head = f"inference-header-content-length: 2\r\ncontent-length: {len(TENSORS)}"
        call.start(200, "application/octet-stream", head)
        call.write(TENSORS)

    world.spare.script = infers
    body = json.dumps({"inputs": [TENSOR]}).encode()
    answer = exchange(world.gateway.port, request("/v2/models/tensors/infer", body, key=KEY))
    assert (answer.status, answer.body, answer.headers["x-extproc-pool"]) == (200, TENSORS, "tensors2")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["inference-header-content-length"] == "2"
    (seen,) = world.spare.seen
    assert (seen.path, json.loads(seen.body)) == ("/v2/models/t2/infer", json.loads(body))


def test_the_same_request_and_nothing_that_was_forged(world: World) -> None:
    world.main.script = answers(503, ERROR)
    forged = "x-extproc-pool: small\nx-gateway-destination-endpoint: 127.0.0.1:1\nx-envoy-retry-on: 5xx\nx-mine: yes"
    answer = world.ask(headers=forged + "\ncookie: secret")
    (seen,) = world.spare.seen
    headers = dict(seen.headers)
    assert answer.headers["x-extproc-pool"] == "spare"
    assert headers["x-request-id"] == answer.headers["x-request-id"]
    assert (headers["host"], headers["x-mine"], headers["content-type"]) == ("test", "yes", "application/json")
    assert not {"authorization", "cookie", "x-gateway-destination-endpoint"} & set(headers)
    assert not any(name.startswith(("x-extproc", "x-envoy")) for name in headers)


def test_only_the_service_reaches_the_way_to_other_pools(world: World) -> None:
    socket = pathlib.Path(str(world.gateway.config.fallback_address).removeprefix("unix:"))
    assert stat.S_IMODE(socket.stat().st_mode) & 0o007 == 0


def test_the_access_log_and_the_metrics_say_who_served(world: World) -> None:
    world.main.script = answers(503, ERROR)
    before = world.books.metric("extproc_fallbacks_total", pool="main", to="spare", outcome="answered")
    with world.books.accounted():
        answer = world.ask(stream=True)
    request_id = answer.headers["x-request-id"]
    log = world.gateway.directory / "access.log"
    assert wait_until(lambda: request_id in log.read_text())
    (line,) = [json.loads(line) for line in log.read_text().splitlines() if request_id in line]
    assert (line["status"], line["pool"], line["fallback_from"]) == (200, "spare", "main")
    assert world.books.metric("extproc_fallbacks_total", pool="main", to="spare", outcome="answered") == before + 1
    assert world.books.metric("extproc_exchanges_total", pool="spare", termination="completed") >= 1


def test_more_than_a_pool_may_have_goes_to_another(world: World) -> None:
    """The circuit breaker of `narrow` lets one request through at a time."""
    released = threading.Event()

    def slow(call: Call) -> None:
        assert released.wait(10)
        call.answer(200, whole("slow"))

    world.main.script = slow
    first: list[str] = []
    thread = threading.Thread(target=lambda: first.append(said(world.ask("narrow"))))
    thread.start()
    assert wait_until(lambda: bool(world.main.seen))
    answer = world.ask("narrow")
    released.set()
    thread.join()
    assert (first, said(answer), answer.headers["x-extproc-pool"]) == (["slow"], "hello there", "spare")


def test_a_server_that_is_ready_and_always_fails_is_ejected(world: World) -> None:
    world.main.script = answers(500, ERROR)
    assert {world.ask("fragile").headers["x-extproc-pool"] for _ in range(10)} == {"spare"}
    assert len(world.main.seen) == 3
    assert any("/failed_outlier_check" in line for line in world.gateway.clusters("fragile/a"))


def test_the_official_client(world: World) -> None:
    world.main.script = world.spare.script = answers(503, ERROR)
    world.small.script = generate
    client = world.gateway.openai()
    answer = client.chat.completions.with_raw_response.create(
        model="main", messages=[{"role": "user", "content": "Hi"}]
    )
    assert answer.headers["x-extproc-pool"] == "small"
    parsed = answer.parse()
    assert (parsed.model, parsed.choices[0].message.content) == ("small", "small talk")
