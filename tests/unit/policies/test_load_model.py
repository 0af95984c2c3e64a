"""What a request is told that can't have its model, and who does not wait for one."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from extproc.clock import Clock
from extproc.config.policy import PolicyMode
from extproc.dialects.interface import RequestHead
from extproc.dialects.registry import resolve
from extproc.model_mesh import UNKNOWN_MS, Entry, MeshModel, Standing
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Reject, Termination, Verdict
from extproc.policies.load_model import LoadModel, Settings
from tests.helpers.journeys import Inside

MODEL = MeshModel("gpu", "m", "openai", wait_s=7, queue_length=3)


class Uses:
    """Says `first` to who comes and `then` to who has waited."""

    def __init__(self, first: Entry, then: Entry | None = None) -> None:
        self.first, self.then = first, then
        self.tickets: set[str] = set()

    async def enter(self, model: MeshModel, ticket: str) -> Entry:
        assert model is MODEL
        self.tickets.add(ticket)
        return self.first

    async def look(self, model: MeshModel) -> Entry:
        assert model is MODEL
        return self.first

    async def turn(self, model: MeshModel, ticket: str, timeout_s: float) -> Entry:
        assert timeout_s == MODEL.wait_s
        assert self.then is not None, "nobody was to wait"
        return self.then

    async def leave(self, ticket: str) -> None:
        self.tickets.remove(ticket)


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path)


def context(inside: Inside, path: str = "/v1/chat/completions", method: str = "POST") -> RequestContext:
    head = RequestHead(method, path, {})
    ctx = RequestContext(head, 0.0, 0.0)
    ctx.route = resolve(head)
    assert ctx.route.api is not None
    asked = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    ctx.request = ctx.route.api.parse(head, asked if method == "POST" else b"")
    ctx.pool = dataclasses.replace(inside.services.catalog.pools["openai"], on_demand=MODEL)
    return ctx


async def verdict(inside: Inside, uses: Uses, ctx: RequestContext, mode: PolicyMode = PolicyMode.ENFORCE) -> Verdict:
    policy = LoadModel(Settings(mode=mode), dataclasses.replace(inside.services, model_uses=uses))
    found = await policy.on_request(ctx)
    assert len(uses.tickets) == bool(ctx.model_ticket)
    await policy.on_close(ctx, Termination.COMPLETED)
    assert not uses.tickets
    return found


@pytest.mark.parametrize(
    ("entry", "reason", "retry_after_s"),
    [
        (Entry(Standing.FULL), "model_full", 7),
        (Entry(Standing.FULL, 2_001), "model_full", 3),
        (Entry(Standing.FULL, 0), "model_full", 1),
        (Entry(Standing.FULL, 500_000), "model_full", 120),
        (Entry(Standing.FAILED, 1_500), "model_failed", 2),
    ],
)
async def test_a_refusal_says_when_to_come_again(inside: Inside, entry: Entry, reason: str, retry_after_s: int) -> None:
    found = await verdict(inside, Uses(entry), context(inside))
    assert isinstance(found, Reject)
    refusal = found.rejection
    assert (refusal.status, refusal.code, refusal.reason) == (503, "overloaded", reason)
    assert refusal.retry_after_s == retry_after_s


@pytest.mark.parametrize(
    ("then", "outcome"),
    [
        (Entry(Standing.READY, 1), "waited"),
        (Entry(Standing.WAITING, UNKNOWN_MS), "too_long"),
        (Entry(Standing.FAILED, 9_000), "failed"),
    ],
)
async def test_who_waits_is_counted_by_what_came_of_it(inside: Inside, then: Entry, outcome: str) -> None:
    found = await verdict(inside, Uses(Entry(Standing.WAITING), then), context(inside))
    assert isinstance(found, Reject) == (outcome != "waited")
    assert inside.metric("extproc_model_requests_total", mesh="gpu", model="m", outcome=outcome) == 1
    assert inside.metric("extproc_model_wait_seconds_count", mesh="gpu") == 1


async def test_a_wait_is_no_time_that_the_service_takes(inside: Inside) -> None:
    ctx, times_s = context(inside), itertools.count(0, 5)
    clock = Clock(monotonic=lambda: float(next(times_s)))
    services = dataclasses.replace(
        inside.services, model_uses=Uses(Entry(Standing.WAITING), Entry(Standing.READY, 1)), clock=clock
    )
    assert await LoadModel(Settings(), services).on_request(ctx) is CONTINUE
    assert ctx.progress.overhead_s == -5


async def test_who_leaves_while_waiting_is_counted(inside: Inside) -> None:
    class Endless(Uses):
        async def turn(self, model: MeshModel, ticket: str, timeout_s: float) -> Entry:
            await asyncio.Event().wait()
            raise AssertionError("nobody set it")

    uses = Endless(Entry(Standing.WAITING))
    asked = asyncio.create_task(verdict(inside, uses, context(inside)))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert inside.metric("extproc_model_requests_total", mesh="gpu", model="m", outcome="left") == 1


@pytest.mark.parametrize(
    ("standing", "outcome"),
    [
        (Standing.READY, "at_once"),
        (Standing.WAITING, "waited"),
        (Standing.FULL, "full"),
        (Standing.FAILED, "failed"),
    ],
)
async def test_shadowed_it_looks_and_nobody_asks(inside: Inside, standing: Standing, outcome: str) -> None:
    ctx = context(inside)
    assert await verdict(inside, Uses(Entry(standing)), ctx, PolicyMode.SHADOW) is CONTINUE
    assert ctx.model_ticket == ""  # or the loader would load the model for it
    assert inside.metric("extproc_model_requests_total", mesh="gpu", model="m", outcome=outcome) == 1


async def test_a_question_about_a_model_loads_nothing(inside: Inside) -> None:
    ctx = context(inside, "/v2/models/m", "GET")
    assert await verdict(inside, Uses(Entry(Standing.FULL)), ctx) is CONTINUE
    assert ctx.model_ticket == ""
