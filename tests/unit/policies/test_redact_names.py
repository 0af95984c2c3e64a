"""Names: what the encoder finds, in requests and in answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from extproc.errors import DependencyError
from extproc.exchange.messages import HeadersReply
from extproc.inference.interface import Encoding
from tests.helpers.redacting import MAIL, Names, Redacting, asked, sent, streamed, whole_chat

PLACEHOLDER = r"<EMAIL_ADDRESS_\d+_[a-z]{6}>"


async def test_names_are_found_where_patterns_are_not(tmp_path: Path) -> None:
    inside = Redacting(tmp_path, encoder=Names(), names=True, requests={"action": "pseudonymise"})
    exchanged = await inside.ask(messages=asked(f"Ann of Paris, {MAIL}, asks Ann"))
    assert re.fullmatch(rf"(<PERSON_1_[a-z]{{6}}>) of Paris, {PLACEHOLDER}, asks \1", sent(exchanged.forwarded)), (
        "Paris is not certain enough"
    )


async def test_they_are_found_in_what_json_says(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":"\\u0041nn"}'}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, *asked("and?")]
    exchanged = await Redacting(tmp_path, encoder=Names(), names=True).ask(messages=messages)
    (called,) = exchanged.forwarded["messages"][0]["tool_calls"]
    assert called["function"]["arguments"] == '{"a":"<PERSON>"}'


async def test_without_the_encoder_it_is_closed_or_patterns_go_on_alone(tmp_path: Path) -> None:
    lost = Names(DependencyError("encoder", "overloaded"))
    closed = await Redacting(tmp_path, encoder=lost, names=True).ask(messages=asked(f"Ann, {MAIL}"))
    assert (closed.status, closed.forwarded) == (503, {})
    inside = Redacting(tmp_path, encoder=lost, names=True, on_failure="open")
    opened = await inside.ask(messages=asked(f"Ann, {MAIL}"))
    assert sent(opened.forwarded) == "Ann, <EMAIL_ADDRESS>"
    assert ("x-extproc-degraded", "redact") in {
        header for reply in opened.replies if isinstance(reply, HeadersReply) for header in reply.set_headers
    }
    assert inside.metric("extproc_policy_failures_total", policy="redact", dependency="encoder") == 2, "once each way"


async def test_what_the_budget_left_unread_is_counted(tmp_path: Path) -> None:
    inside = Redacting(tmp_path, encoder=Names(), names=True)
    await inside.ask(messages=asked("Ann " * 50))
    assert inside.metric("extproc_pii_partly_read_total", direction="request", mode="enforce") == 0
    await inside.ask(messages=asked("Ann " * 500))
    assert inside.metric("extproc_pii_partly_read_total", direction="request", mode="enforce") == 1


TALE = (
    "Yesterday I met Ann at the station, again. She said so to Dr. Ann Lee of Paris, who wrote from x@example.org. Bye!"
)
RETOLD = TALE.replace("Ann", "<PERSON>").replace("x@example.org", "<EMAIL_ADDRESS>")
STREAMS = {"names": {"streams": True}}


async def test_names_in_a_whole_answer(tmp_path: Path) -> None:
    inside = Redacting(tmp_path, encoder=Names(), names=True)
    call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": '{"to":"\\u0041nn"}'}}
    answer = whole_chat(TALE, reasoning_content="So Ann.", tool_calls=[call])
    exchanged = await inside.ask(lambda _: [answer], messages=asked("?"))
    (choice,) = exchanged.joined().values()
    assert (choice["text"], choice["reasoning"]) == (RETOLD, "So <PERSON>.")
    assert exchanged.arguments == ['{"to":"<PERSON>"}']
    labels = {"entity": "PERSON", "action": "redact", "direction": "response", "mode": "enforce"}
    assert inside.metric("extproc_pii_found_total", **labels) == 4


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
async def test_names_in_a_stream_come_by_sentences_and_read_as_in_a_whole_answer(tmp_path: Path, size: int) -> None:
    inside = Redacting(tmp_path, encoder=Names(), names=True, responses=STREAMS)
    answer = streamed(*(TALE[at : at + size] for at in range(0, len(TALE), size)))
    exchanged = await inside.ask(lambda _: answer, messages=asked("?"), stream=True)
    assert exchanged.text == RETOLD
    said = [event["choices"][0]["delta"].get("content") for event in exchanged.events]
    assert size == 1000 or "Yesterday I met <PERSON> at the station, again." in said


async def test_a_stream_isnt_held_for_names_unless_it_is_said(tmp_path: Path) -> None:
    inside = Redacting(tmp_path, encoder=Names(), names=True)
    exchanged = await inside.ask(
        lambda _: streamed("I met Ann ", "and x@example.org ."), messages=asked("?"), stream=True
    )
    assert exchanged.text == "I met Ann and <EMAIL_ADDRESS> ."


async def test_names_of_which_nothing_becomes_are_not_looked_for(tmp_path: Path) -> None:
    lost = Names(DependencyError("encoder", "overloaded"))
    allowed = {"actions": dict.fromkeys(("PERSON", "LOCATION", "ORGANIZATION", "ADDRESS"), "allow")}
    inside = Redacting(tmp_path, encoder=lost, names=True, requests={"action": "allow"}, responses=allowed)
    assert (await inside.ask(lambda _: [whole_chat("Ann")], messages=asked("?"))).text == "Ann"


async def test_originals_that_were_put_back_and_placeholders_are_no_names(tmp_path: Path) -> None:
    inside = Redacting(tmp_path, encoder=Names(), names=True, requests={"action": "pseudonymise"})

    def echo(forwarded: dict[str, Any]) -> list[bytes]:
        return [whole_chat(f"Dear {sent(forwarded)}, not <PERSON_Ann> nor Ann")]

    exchanged = await inside.ask(echo, messages=asked("Ann"))
    assert exchanged.text == "Dear Ann, not <PERSON_Ann> nor <PERSON>"


async def test_a_name_can_end_an_answer(tmp_path: Path) -> None:
    inside = Redacting(tmp_path, encoder=Names(), names=True, responses={"actions": {"PERSON": "block"}, **STREAMS})
    for stream in (False, True):
        answer = streamed(*TALE) if stream else [whole_chat(TALE)]
        exchanged = await inside.ask(lambda _, answer=answer: answer, messages=asked("?"), stream=stream)
        assert (exchanged.text, exchanged.joined()[0]["finish"]) == ("Yesterday I met ", "content_filter")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_while_the_encoder_is_lost(tmp_path: Path, *, stream: bool) -> None:
    answer = streamed(*TALE) if stream else [whole_chat(TALE)]
    rules = {"requests": {"action": "allow"}, "responses": {"actions": {"LOCATION": "allow"}, **STREAMS}}
    closed = Redacting(tmp_path, encoder=Failing(), names=True, **rules)
    ended = await closed.ask(lambda _: answer, messages=asked("?"), stream=stream)
    assert "Ann" not in ended.body.decode()
    error = ended.events[-1]["error"] if stream else ended.error
    assert (ended.status, error["code"]) == (200 if stream else 503, "overloaded")
    opened = Redacting(tmp_path, encoder=Failing(), names=True, on_failure="open", **rules)
    exchanged = await opened.ask(lambda _: answer, messages=asked("?"), stream=stream)
    assert exchanged.text == TALE.replace("x@example.org", "<EMAIL_ADDRESS>")
    assert opened.metric("extproc_policy_failures_total", policy="redact", dependency="encoder") == 1
    headers = {header for reply in exchanged.replies if isinstance(reply, HeadersReply) for header in reply.set_headers}
    assert (("x-extproc-degraded", "redact") in headers) is not stream, "a stream's head has gone before its names"


async def test_of_a_long_answer_so_many_windows_are_read(tmp_path: Path) -> None:
    inside = Redacting(tmp_path, encoder=Names(), names=True, responses={"names": {"budget_windows": 3}})
    text = "This is what Ann had to say about it all.\n" * 5
    exchanged = await inside.ask(lambda _: [whole_chat(text)], messages=asked("?"))
    assert exchanged.text.count("<PERSON>") == 3
    assert exchanged.text.count("Ann") == 2
    assert inside.metric("extproc_pii_partly_read_total", direction="response", mode="enforce") == 1


class Failing(Names):
    """An encoder that reads requests and fails on answers."""

    async def encode(self, texts: Sequence[str], deadline_s: float) -> Sequence[Encoding]:
        if texts == ["?"]:
            return await super().encode(texts, deadline_s)
        raise DependencyError("encoder", "overloaded")
