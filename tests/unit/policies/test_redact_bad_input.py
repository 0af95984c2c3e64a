"""Texts, streams and requests made to cost `redact` much, or to confuse it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extproc.detection.pseudonyms import Pseudonyms
from extproc.detection.scanner import PatternScanner, Selection
from extproc.dialects.answer import Delta, Done
from extproc.policies.redact_answers import AnswerRedactor, Channel
from extproc.policies.redact_exchange import Direction, Redaction, Rules
from tests.helpers.redacting import (
    DONE,
    MAIL,
    Redacting,
    asked,
    at_once,
    event,
    streamed,
    whole_chat,
)


class TestBadInput:
    """Bounded time and memory, the right text, no crash. The bounds are far above what it takes."""

    SECONDS = 20.0

    @pytest.fixture(autouse=True)
    def _soon(self, tmp_path: Path) -> Iterator[None]:
        Redacting(tmp_path)  # patterns are compiled once
        began_s = time.process_time()
        yield
        assert time.process_time() - began_s < self.SECONDS

    def redactor(self, directory: Path) -> tuple[AnswerRedactor, Redaction]:
        redaction = Redaction("t", None)
        rules = Rules("redact", {})
        scanner = PatternScanner.compile(Selection(frozenset({"EMAIL_ADDRESS", "CREDIT_CARD"})))
        replace = redaction.replacer(rules, Direction.RESPONSE)

        def channel(json: bool) -> Channel:
            return Channel(scanner.open, rules, replace, redaction.pseudonyms, json=json)

        return AnswerRedactor(channel, lambda _: None, 1, stream=True), redaction

    @pytest.mark.parametrize("pattern", ["\u200b", "a", "1", "@", "1 ", "a.b-", "<", "<EMAIL_", '"', "\\u00"])
    def test_a_long_text_made_to_be_slow(self, tmp_path: Path, pattern: str) -> None:
        text = pattern * (200_000 // len(pattern))
        redactor, redaction = self.redactor(tmp_path)
        redaction.pseudonyms = Pseudonyms("kdwzpr")
        redaction.pseudonyms.placeholder("EMAIL_ADDRESS", "original")
        pieces = [text[at : at + 1000] for at in range(0, len(text), 1000)]
        fragments = [Delta(tool_calls=[{"index": 0, "function": {"arguments": piece}}]) for piece in pieces]
        for events in ([Delta(text=text)], [Delta(text=piece) for piece in pieces], fragments):
            for one in events:
                at_once(redactor.pass_on([one]))
        (whole,) = at_once(redactor.pass_on([Delta(text=f" {MAIL}", finish_reason="stop")]))
        assert isinstance(whole, Delta)
        assert whole.text.endswith(" <EMAIL_ADDRESS>")

    def test_ten_megabytes_of_zero_width_letters(self, tmp_path: Path) -> None:
        redactor, redaction = self.redactor(tmp_path)
        text = "\u200b" * (10 * 1024 * 1024 // 3)
        passed = at_once(
            redactor.pass_on([Delta(text=text), Delta(text=f" {MAIL} "), Delta(finish_reason="stop"), Done()])
        )
        said = "".join(event.text for event in passed if isinstance(event, Delta))
        assert said == f"{text} <EMAIL_ADDRESS> "
        assert redaction.changed == 1

    def test_a_hundred_thousand_tiny_chunks(self, tmp_path: Path) -> None:
        redactor, _ = self.redactor(tmp_path)
        text = (f"{'x' * 30} {MAIL} " * 2000)[:100_000]
        said = ""
        for letter in text:
            said += "".join(
                event.text for event in at_once(redactor.pass_on([Delta(text=letter)])) if isinstance(event, Delta)
            )
        said += "".join(event.text for event in at_once(redactor.pass_on([Done()])) if isinstance(event, Delta))
        assert said.count("<EMAIL_ADDRESS>") == text.count(MAIL)

    async def test_a_card_number_in_five_chunks(self, tmp_path: Path) -> None:
        answer = streamed("Card 4", "111 1", "111 111", "1 11", "11, thanks")
        exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("?"), stream=True)
        assert exchanged.text == "Card <CREDIT_CARD>, thanks"

    async def test_what_is_no_utf8(self, tmp_path: Path) -> None:
        broken = event(content="x").replace(b'"x"', b'"\xff\xfe"')
        answer = [event(content="It is fine. "), broken, DONE]
        exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("?"), stream=True)
        assert exchanged.events[-1]["error"]["code"] == "upstream_error"

    async def test_deep_content(self, tmp_path: Path) -> None:
        deep: Any = MAIL
        for _ in range(55):
            deep = [deep]
        exchanged = await Redacting(tmp_path).ask(messages=asked("x"), documents=deep)
        assert MAIL not in json.dumps(exchanged.forwarded)
        for _ in range(20):
            deep = [deep]
        assert (await Redacting(tmp_path).ask(messages=asked("x"), documents=deep)).status == 400

    async def test_odd_tool_calls(self, tmp_path: Path) -> None:
        odd: list[Any] = [
            {"index": "x", "function": {"arguments": MAIL}},
            {"index": 10**9, "function": {"arguments": "1"}},
            {"function": None},
            {"index": 0, "function": {"arguments": 5}},
            {"index": 1, "function": {"arguments": None, "name": None}},
        ]
        answer = [*(event(tool_calls=[call]) for call in odd), event(0, "stop"), DONE]
        exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("?"), stream=True)
        assert exchanged.body.endswith(DONE)
        assert MAIL.encode() not in exchanged.body

    @pytest.mark.parametrize("depth", [1, 40, 3000])
    async def test_content_parts_within_parts_are_refused_not_passed_unread(self, tmp_path: Path, depth: int) -> None:
        parts = '{"type":"text","text":' * depth + f'"{MAIL}"' + "}" * depth
        body = f'{{"model":"talker","messages":[{{"role":"user","content":[{parts}]}}]}}'
        exchanged = await Redacting(tmp_path).send(body.encode())
        if depth == 1:
            assert exchanged.forwarded["messages"][0]["content"] == [{"type": "text", "text": "<EMAIL_ADDRESS>"}]
        else:
            assert (exchanged.status, exchanged.forwarded) == (400, {})

    async def test_a_request_that_is_no_utf8_is_refused(self, tmp_path: Path) -> None:
        body = b'{"model":"talker","messages":[{"role":"user","content":"\xff' + MAIL.encode() + b'"}]}'
        exchanged = await Redacting(tmp_path).send(body)
        assert (exchanged.status, exchanged.forwarded) == (400, {})
        assert MAIL.encode() not in exchanged.body

    async def test_placeholders_that_nobody_issued(self, tmp_path: Path) -> None:
        forged = "".join(f"<EMAIL_ADDRESS_{number}_bcdfgh><PERSON_{number}_" for number in range(20))
        inside = Redacting(tmp_path, requests={"action": "pseudonymise"})
        exchanged = await inside.ask(lambda _: [whole_chat(forged)], messages=asked(f"{MAIL} {forged}"))
        assert exchanged.text == forged
        assert MAIL not in exchanged.body.decode()
