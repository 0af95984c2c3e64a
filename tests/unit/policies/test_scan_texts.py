"""Which texts of a request the encoder is given, in which order, and that it is stopped with the exchange."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import orjson
import pytest

from extproc.config.policy import PolicyMode
from extproc.dialects.interface import RequestHead
from extproc.dialects.registry import resolve
from extproc.policies import pipeline
from extproc.policies.context import RequestContext
from extproc.policies.guard import Settings as GuardSettings
from extproc.policies.interface import CONTINUE, Termination
from extproc.policies.scan_texts import ScanTexts, Settings
from tests.helpers.journeys import Inside
from tests.helpers.scripted_encoder import Scripted

PATH = "/v1/chat/completions"
GUARDED = {"guard": GuardSettings(mode=PolicyMode.ENFORCE)}
MESSAGES = [
    {"role": "system", "content": "sys"},
    {"role": "user", "content": "old"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]},
    {"role": "tool", "tool_call_id": "1", "content": "tool"},
    {"role": "user", "content": [{"type": "text", "text": "new"}, {"type": "text", "text": "also"}]},
]  # fmt: skip


def context() -> RequestContext:
    head = RequestHead("POST", PATH, {"content-type": "application/json"})
    ctx = RequestContext(head, 0.0, 0.0)
    route = resolve(head)
    assert route.api is not None
    ctx.request = route.api.parse(head, orjson.dumps({"model": "talker", "messages": MESSAGES}))
    return ctx


@pytest.fixture
def encoder() -> Scripted:
    return Scripted()


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path)


def policy(inside: Inside, encoder: Scripted, budget_windows: int) -> ScanTexts:
    services = dataclasses.replace(inside.services, encoder=encoder)
    return ScanTexts(Settings(budget_windows=budget_windows), services)


async def test_everything_a_client_wrote_where_there_is_room(inside: Inside, encoder: Scripted) -> None:
    ctx = context()
    assert await policy(inside, encoder, 16).on_request(ctx) is CONTINUE
    await asyncio.sleep(0)
    assert set(encoder.given) >= {"sys", "old", "tool", "new", "also"}


async def test_the_whole_last_user_turn_then_tools_where_there_is_not(inside: Inside, encoder: Scripted) -> None:
    ctx = context()
    await policy(inside, encoder, 3).on_request(ctx)
    assert ctx.scan is not None
    await ctx.scan.results([])
    await asyncio.sleep(0)
    assert encoder.given == ["new", "also", "tool"]


async def test_the_end_of_the_exchange_is_the_end_of_the_scan(inside: Inside, encoder: Scripted) -> None:
    encoder.open.clear()
    ctx, scan = context(), policy(inside, encoder, 16)
    await scan.on_request(ctx)
    await asyncio.sleep(0)
    await scan.on_close(ctx, Termination.CANCELLED)
    await asyncio.sleep(0)
    assert encoder.cancelled == 1


def test_it_has_a_place_in_the_journey_only_with_an_encoder(inside: Inside, encoder: Scripted) -> None:
    services = dataclasses.replace(inside.services, encoder=encoder)
    without, with_one = pipeline.build(GUARDED, inside.services), pipeline.build(GUARDED, services)
    assert "scan" not in {step.name for step in (*without.request, *without.close)}
    assert "scan" in {step.name for step in with_one.request} & {step.name for step in with_one.close}
