"""Placeholders on their way to a model, and originals on their way back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.helpers.redacting import DONE, MAIL, Redacting, asked, event, finish, sent, streamed, tool_call, whole_chat

PLACEHOLDER = r"<EMAIL_ADDRESS_\d+_[a-z]{6}>"


def pseudonymising(directory: Path) -> Redacting:
    return Redacting(directory, requests={"action": "pseudonymise"})


async def test_the_model_never_sees_what_the_client_gets_back(tmp_path: Path) -> None:
    def echo(forwarded: dict[str, Any]) -> list[bytes]:
        return [whole_chat(f"Dear {sent(forwarded)}")]

    exchanged = await pseudonymising(tmp_path).ask(echo, messages=asked(f"{MAIL} {MAIL} and bob@example.org"))
    assert re.fullmatch(rf"({PLACEHOLDER}) \1 and (?!\1){PLACEHOLDER}", sent(exchanged.forwarded))
    assert exchanged.text == f"Dear {MAIL} {MAIL} and bob@example.org"


async def test_every_exchange_has_placeholders_of_its_own(tmp_path: Path) -> None:
    inside = pseudonymising(tmp_path)
    first = sent((await inside.ask(messages=asked(MAIL))).forwarded)
    second = await inside.ask(lambda _: [whole_chat(first)], messages=asked("bob@example.org"))
    assert second.text == first
    assert sent(second.forwarded) != first


async def test_what_looks_like_a_placeholder_but_was_not_issued_stays(tmp_path: Path) -> None:
    forged = "<EMAIL_ADDRESS_1_bcdfgh> <EMAIL_ADDRESS_1>"

    def echo(forwarded: dict[str, Any]) -> list[bytes]:
        issued = re.search(PLACEHOLDER, sent(forwarded).removeprefix(forged))
        assert issued is not None
        made_up = issued[0].replace("_1_", "_7_")
        return [whole_chat(f"{sent(forwarded)} {made_up}")]

    exchanged = await pseudonymising(tmp_path).ask(echo, messages=asked(f"{forged} {MAIL}"))
    assert re.fullmatch(rf"{forged} {MAIL} <EMAIL_ADDRESS_7_[a-z]{{6}}>", exchanged.text)


async def test_originals_come_back_in_reasoning_and_in_tool_calls_as_json(tmp_path: Path) -> None:
    def echo(forwarded: dict[str, Any]) -> list[bytes]:
        placeholder = sent(forwarded)
        arguments = json.dumps({"to": placeholder}).replace("<", "\\u003c")
        pieces = [tool_call(letter) for letter in arguments]
        thoughts = [event(reasoning_content=letter) for letter in f"So {placeholder}."]
        return [*thoughts, *(event(tool_calls=[piece]) for piece in pieces), finish("tool_calls"), DONE]

    exchanged = await pseudonymising(tmp_path).ask(echo, messages=asked(MAIL), stream=True)
    assert exchanged.joined()[0]["reasoning"] == f"So {MAIL}."
    assert json.loads(exchanged.arguments[0]) == {"to": MAIL}


async def test_originals_are_put_back_though_answers_are_not_read(tmp_path: Path) -> None:
    inside = Redacting(tmp_path, requests={"action": "pseudonymise"}, responses={"action": "allow"})

    def echo(forwarded: dict[str, Any]) -> list[bytes]:
        return streamed(*f"{sent(forwarded)} or carl@example.org")

    exchanged = await inside.ask(echo, messages=asked(MAIL), stream=True)
    assert exchanged.text == f"{MAIL} or carl@example.org"


async def test_a_complaint_is_turned_back_too(tmp_path: Path) -> None:
    def complain(forwarded: dict[str, Any]) -> list[bytes]:
        return [json.dumps({"error": {"message": f"can't read {sent(forwarded)}"}}).encode()]

    exchanged = await pseudonymising(tmp_path).ask(complain, messages=asked(MAIL), status=400)
    assert exchanged.error["message"] == f"can't read {MAIL}"
