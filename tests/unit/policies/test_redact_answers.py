"""What `redact` does to answers, whole and streamed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.helpers.redacting import DONE, MAIL, USAGE, Redacting, asked, event, finish, streamed, tool_call, whole_chat


async def test_whole(tmp_path: Path) -> None:
    call = {
        "id": "c",
        "type": "function",
        "function": {"name": "send", "arguments": '{"to":"ann.lee@example.com"}'},
    }
    answer = whole_chat(f"It is {MAIL}.", reasoning_content=f"So {MAIL}", tool_calls=[call], refusal=None, odd=MAIL)
    exchanged = await Redacting(tmp_path).ask(lambda _: [answer], messages=asked("Who?"))
    assert exchanged.joined()[0] == {
        "text": "It is <EMAIL_ADDRESS>.",
        "reasoning": "So <EMAIL_ADDRESS>",
        "calls": [{"function": {"name": "send", "arguments": '{"to":"<EMAIL_ADDRESS>"}'}}],
        "finish": "stop",
    }
    assert MAIL not in exchanged.body.decode()


@pytest.mark.parametrize("stream", [False, True])
async def test_refusals(tmp_path: Path, *, stream: bool) -> None:
    answer = (
        [event(refusal=f"Not to {MAIL}"), finish(), DONE] if stream else [whole_chat(None, refusal=f"Not to {MAIL}")]
    )
    exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("?"), stream=stream)
    pieces = (
        [event["choices"][0]["delta"] for event in exchanged.events]
        if stream
        else [json.loads(exchanged.body)["choices"][0]["message"]]
    )
    assert "".join(piece.get("refusal") or "" for piece in pieces) == "Not to <EMAIL_ADDRESS>"
    assert not any(piece.get("content") for piece in pieces)


async def test_choices_are_texts_of_their_own(tmp_path: Path) -> None:
    answer = [
        event(0, content="ann.lee@exam"),
        event(1, content="bob@exam"),
        event(0, content="ple.com!"),
        event(1, content="ple.org!"),
        finish(index=1),
        finish(index=0),
        USAGE,
        DONE,
    ]
    exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("Who?"), stream=True, n=2)
    joined = exchanged.joined()
    assert [joined[index]["text"] for index in (0, 1)] == ["<EMAIL_ADDRESS>!", "<EMAIL_ADDRESS>!"]
    assert [joined[index]["finish"] for index in (0, 1)] == ["stop", "stop"]


async def test_what_is_held_comes_before_the_finish_reason_and_the_usage(tmp_path: Path) -> None:
    answer = [event(content="It is ann.lee@example.com"), finish(), USAGE, DONE]
    options = {"stream_options": {"include_usage": True}}
    exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("Who?"), stream=True, **options)
    assert exchanged.text == "It is <EMAIL_ADDRESS>"
    assert [bool(e["choices"]) for e in exchanged.events][-1] is False
    assert exchanged.events[-2]["choices"][0]["finish_reason"] == "stop"
    assert exchanged.body.endswith(DONE)


async def test_an_answer_without_a_finish_reason_loses_nothing(tmp_path: Path) -> None:
    answer = [event(content="It is ann.lee@example.com"), DONE]
    exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("Who?"), stream=True)
    assert exchanged.text == "It is <EMAIL_ADDRESS>"


async def test_a_failure_lets_go_what_is_held_and_is_read_itself(tmp_path: Path) -> None:
    error = json.dumps({"error": {"message": f"bad input: {MAIL}", "code": 500}}).encode()
    answer = [event(content="It is fine. ann"), b"data: " + error + b"\n\n"]
    exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("Who?"), stream=True)
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in exchanged.events[:-1]) == "It is fine. ann"
    assert exchanged.events[-1]["error"]["message"] == "bad input: <EMAIL_ADDRESS>"
    assert MAIL.encode() not in exchanged.body
    refused = await Redacting(tmp_path).ask(lambda _: [error], messages=asked("Who?"), status=400)
    assert MAIL.encode() not in refused.body


@pytest.mark.parametrize("stream", [False, True])
async def test_a_block_ends_the_answer_there(tmp_path: Path, *, stream: bool) -> None:
    inside = Redacting(tmp_path, responses={"actions": {"EMAIL_ADDRESS": "block"}})
    text = f"It is {MAIL}. Anything else?"
    answer = [*streamed(*text), USAGE] if stream else [whole_chat(text)]
    exchanged = await inside.ask(lambda _: answer, messages=asked("Who?"), stream=stream)
    assert (exchanged.text, exchanged.joined()[0]["finish"]) == ("It is ", "content_filter")
    assert exchanged.body.endswith(DONE) is stream
    (usage,) = inside.usage.events
    assert (usage["termination"], usage["reason"]) == ("COMPLETED", "pii_blocked")
    assert usage["completion_tokens"] > 0


async def test_one_blocked_choice_leaves_the_other_its_end(tmp_path: Path) -> None:
    answer = [
        event(0, content=f"{MAIL} x"),
        event(1, content="all "),
        event(0, content=" more"),
        event(1, content="good"),
        finish(index=0),
        finish(index=1),
        DONE,
    ]
    inside = Redacting(tmp_path, responses={"actions": {"EMAIL_ADDRESS": "block"}})
    exchanged = await inside.ask(lambda _: answer, messages=asked("Who?"), stream=True, n=2)
    joined = exchanged.joined()
    assert (joined[0]["text"], joined[0]["finish"]) == ("", "content_filter")
    assert (joined[1]["text"], joined[1]["finish"]) == ("all good", "stop")


async def test_what_the_limit_cuts_is_let_go_before_it(tmp_path: Path) -> None:
    inside = Redacting(tmp_path, limit={"keys": {"inside": {"tokens_per_minute": 60}}})
    words = [f"word{number} " for number in range(90)]
    exchanged = await inside.ask(lambda _: streamed(*words), messages=asked("Hi"), stream=True)
    received = exchanged.text
    assert "".join(words).startswith(received)
    assert exchanged.joined()[0]["finish"] == "length"
    assert inside.usage.events[0]["reason"] == "limit_reached"
    assert re.search(r"word\d+ $", received)


async def test_logprobs_would_tell_what_the_text_does_not(tmp_path: Path) -> None:
    logprobs = {"content": [{"token": "ann", "logprob": -1.0, "top_logprobs": []}]}
    inside = Redacting(tmp_path)
    for text, kept in (("fine", logprobs), (MAIL, None)):
        body = json.loads(whole_chat(text))
        body["choices"][0]["logprobs"] = logprobs
        answer = json.dumps(body).encode()
        exchanged = await inside.ask(lambda _, answer=answer: [answer], messages=asked("?"), logprobs=True)
        assert json.loads(exchanged.body)["choices"][0]["logprobs"] == kept
    answer = [event(content="fine ", logprobs=logprobs), finish(), DONE]
    exchanged = await inside.ask(lambda _: answer, messages=asked("?"), logprobs=True, stream=True)
    assert b'logprob"' not in exchanged.body
    assert exchanged.text == "fine "


async def test_tool_calls_in_fragments(tmp_path: Path) -> None:
    arguments = ['{"to":"ann.lee\\u00', "40exam", 'ple.com","n":1', "}"]
    head = tool_call("", id="c1", type="function")
    head["function"]["name"] = "send"
    other = tool_call('{"q":"x', 1, id="c2", type="function")
    answer = [
        event(role="assistant", content="Sending to ann"),
        event(tool_calls=[head]),
        *(event(tool_calls=[tool_call(part)]) for part in arguments),
        event(tool_calls=[other]),
        event(tool_calls=[tool_call('y"}', 1)]),
        finish("tool_calls"),
        DONE,
    ]
    exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("?"), stream=True)
    assert exchanged.arguments == ['{"to":"<EMAIL_ADDRESS>","n":1}', '{"q":"xy"}']
    assert exchanged.text == "Sending to ann"
    first = next(e for e in exchanged.events if e["choices"][0]["delta"].get("tool_calls"))
    call = first["choices"][0]["delta"]["tool_calls"][0]
    assert (call["id"], call["type"], call["function"]["name"]) == ("c1", "function", "send")
    assert first["choices"][0]["delta"].get("content", "").endswith("ann"), "text goes before the calls after it"


async def test_what_is_not_read_does_not_pass(tmp_path: Path) -> None:
    answer = [event(content="a", function_call={"arguments": MAIL}), event(annotations=[MAIL]), finish(), DONE]
    exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("?"), stream=True)
    assert MAIL.encode() not in exchanged.body


async def test_answers_that_are_allowed_pass_to_the_byte(tmp_path: Path) -> None:
    inside = Redacting(tmp_path, responses={"action": "allow"})
    answer = [event(content=MAIL, odd="x"), finish(), DONE]
    exchanged = await inside.ask(lambda _: answer, messages=asked(MAIL), stream=True)
    assert b'"odd": "x"' in exchanged.body
    assert exchanged.text == MAIL
