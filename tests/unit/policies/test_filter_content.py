"""Topics: what is asked and what is answered, compared with examples by an encoder that can be seen through."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extproc.clock import Clock
from extproc.config.policy import PolicyMode
from extproc.dialects.answer import AnswerEvent, Delta, Done, Usage
from extproc.dialects.interface import RequestHead
from extproc.dialects.openai_requests import ChatRequest
from extproc.errors import DependencyError
from extproc.inference.interface import Encoding
from extproc.policies.content_rules import Rule, RuleAction, Settings
from extproc.policies.context import RequestContext
from extproc.policies.filter_content import FilterContent
from extproc.policies.interface import CONTINUE, Reject
from extproc.policies.scan import Scan
from tests.helpers.journeys import Inside

BOMB = "how to build a bomb"
END = [Usage(1, 2), Done()]


class Letters:
    """An encoder whose embedding counts letters."""

    def windows(self, text: str) -> Sequence[tuple[int, int]]:
        return [(start, start + 500) for start in range(0, len(text), 500)]

    async def encode(self, texts: Sequence[str], deadline_s: float) -> Sequence[Encoding]:
        return [Encoding(_embedding(text)) for text in texts]


def _embedding(text: str) -> bytes:
    counts = np.array([text.count(chr(97 + place)) for place in range(26)], dtype="<f4")
    return (counts / max(float(np.linalg.norm(counts)), 1e-9)).astype("<f4").tobytes()


def policy(tmp_path: Path, action: RuleAction = RuleAction.BLOCK, encoder: Any = None) -> FilterContent:
    services = dataclasses.replace(Inside(tmp_path).services, encoder=encoder or Letters())
    rule = Rule(topic=(BOMB, "zzz"), similarity=0.95, action=action)
    return FilterContent(Settings(mode=PolicyMode.ENFORCE, rules={"weapons": rule}), services)


def context(text: str, *, stream: bool = False) -> RequestContext:
    ctx = RequestContext(RequestHead("POST", "/v1/chat/completions", {}), 0.0, 0.0)
    ctx.request = ChatRequest({"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream})
    ctx.scan = Scan(Letters(), 10, 1.0, Clock())
    return ctx


async def test_a_request_on_a_topic_is_refused(tmp_path: Path) -> None:
    verdict = await policy(tmp_path).on_request(context("a bomb: how to build"))
    assert isinstance(verdict, Reject)
    assert verdict.rejection.code == "content_filter"
    assert "weapons" in verdict.rejection.message
    assert await policy(tmp_path).on_request(context("lovely weather")) is CONTINUE


async def test_a_flagged_topic_passes(tmp_path: Path) -> None:
    ctx = context(BOMB)
    assert await policy(tmp_path, RuleAction.FLAG).on_request(ctx) is CONTINUE
    assert ctx.filtering is not None
    assert [name for name, _ in ctx.filtering.counts] == ["weapons"]


async def test_a_whole_answer_on_a_topic_is_withheld(tmp_path: Path) -> None:
    events: list[AnswerEvent] = [Delta(0, BOMB, role="assistant", finish_reason="stop"), *END]
    passed = await policy(tmp_path).on_answer(context("hi"), events)
    assert passed == [Delta(0, role="assistant", finish_reason="content_filter"), *END]


async def test_a_stream_that_comes_to_a_topic_is_ended(tmp_path: Path) -> None:
    rules, ctx = policy(tmp_path), context("hi", stream=True)
    passed: list[AnswerEvent] = []
    for _ in range(60):
        passed += await rules.on_answer(ctx, [Delta(0, BOMB + " ")])
        if type(passed[-1]) is Done:
            break
    assert passed[-2:] == [Delta(0, finish_reason="content_filter"), Done()]
    assert sum(len(one.text) for one in passed if type(one) is Delta) < 450
    assert ctx.reason == "content_rule"


async def test_an_answer_about_something_else_is_untouched(tmp_path: Path) -> None:
    events: list[AnswerEvent] = [Delta(0, "lovely weather today " * 50, finish_reason="stop"), *END]
    assert await policy(tmp_path).on_answer(context("hi"), events) == events


async def test_without_the_encoder_nobody_can_tell(tmp_path: Path) -> None:
    ctx = RequestContext(RequestHead("POST", "/v1/chat/completions", {}), 0.0, 0.0)
    ctx.request = ChatRequest({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    with pytest.raises(DependencyError):
        await policy(tmp_path).on_request(ctx)
