"""What the runner gives every policy: order, mode, deadline, failure mode, finalizers that all run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from extproc.config.policy import FailureMode, PolicyMode, PolicySettings
from extproc.dialects.answer import AnswerEvent, Delta, Done
from extproc.dialects.interface import RequestHead
from extproc.errors import DependencyError
from extproc.policies import pipeline
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Reject, Respond, Termination, Verdict
from extproc.policies.pipeline import Pipeline, Step
from extproc.rejection import invalid_request
from tests.helpers.journeys import Inside

REFUSAL = Reject(invalid_request("no", reason="because"))


def context() -> RequestContext:
    return RequestContext(RequestHead("POST", "/v1/chat/completions", {"x-request-id": "r"}), 0.0, 0.0)


class Probe:
    """A policy that does as it is told and remembers that it ran."""

    def __init__(self, ran: list[str], name: str, does: Any) -> None:
        self._ran, self._name, self._does = ran, name, does

    async def __call__(self, *arguments: Any) -> Any:
        self._ran.append(self._name)
        if isinstance(self._does, Exception):
            raise self._does
        if callable(self._does):
            return await self._does(*arguments)
        return self._does


def step(ran: list[str], name: str, does: Any, **settings: Any) -> Step:
    chosen = PolicySettings(**settings)
    return Step(name, Probe(ran, name, does), chosen, chosen.mode is PolicyMode.SHADOW)


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path)


def built(inside: Inside, **phases: tuple[Step, ...]) -> Pipeline:
    empty: dict[str, tuple[Step, ...]] = {"head": (), "request": (), "known_answer": (), "answer": (), "close": ()}
    return Pipeline(inside.services, **{**empty, **phases})


async def hang(*_: Any) -> Verdict:
    await asyncio.sleep(60)
    return CONTINUE


class TestDecisions:
    async def test_the_first_verdict_ends_the_journey(self, inside: Inside) -> None:
        ran: list[str] = []
        steps = (step(ran, "a", CONTINUE), step(ran, "b", REFUSAL), step(ran, "c", CONTINUE))
        assert await built(inside, request=steps).on_request(context()) is REFUSAL
        assert ran == ["a", "b"]
        labels = {"policy": "b", "verdict": "reject", "mode": "enforce", "reason": "because"}
        assert inside.metric("extproc_verdicts_total", **labels) == 1

    async def test_a_respond_ends_it_too(self, inside: Inside) -> None:
        answer = Respond(200, b"cached")
        assert await built(inside, head=(step([], "cache", answer),)).on_head(context()) is answer

    async def test_shadow_counts_and_lets_pass(self, inside: Inside) -> None:
        ran: list[str] = []
        steps = (step(ran, "a", REFUSAL, mode=PolicyMode.SHADOW), step(ran, "b", CONTINUE))
        assert await built(inside, request=steps).on_request(context()) is CONTINUE
        assert ran == ["a", "b"]
        labels = {"policy": "a", "verdict": "reject", "mode": "shadow", "reason": "because"}
        assert inside.metric("extproc_verdicts_total", **labels) == 1

    async def test_each_step_is_timed(self, inside: Inside) -> None:
        ctx = context()
        await built(inside, request=(step([], "a", CONTINUE),)).on_request(ctx)
        assert ctx.progress.step_s["a"] >= 0


class TestFailures:
    @pytest.mark.parametrize(
        "failing",
        [{"does": DependencyError("redis", "gone")}, {"does": hang, "deadline_s": 0.01}],
        ids=["dependency", "deadline"],
    )
    @pytest.mark.parametrize("mode", FailureMode)
    async def test_the_policys_failure_mode_decides(
        self, inside: Inside, failing: dict[str, Any], mode: FailureMode
    ) -> None:
        ctx = context()
        verdict = await built(inside, request=(step([], "guard", on_failure=mode, **failing),)).on_request(ctx)
        if mode is FailureMode.OPEN:
            assert verdict is CONTINUE
        else:
            assert isinstance(verdict, Reject)
            assert (verdict.rejection.status, verdict.rejection.reason) == (503, "guard_unavailable")
        assert ctx.degraded == {"guard"}
        dependency = "redis" if "deadline_s" not in failing else "guard"
        assert inside.metric("extproc_policy_failures_total", policy="guard", dependency=dependency) == 1

    async def test_a_bug_is_not_hidden(self, inside: Inside) -> None:
        with pytest.raises(ZeroDivisionError):
            await built(inside, request=(step([], "a", ZeroDivisionError()),)).on_request(context())

    async def test_cancellation_passes_through(self, inside: Inside) -> None:
        running = asyncio.create_task(built(inside, request=(step([], "a", hang),)).on_request(context()))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


class TestAnswers:
    EVENTS: Sequence[AnswerEvent] = (Delta(text="a"), Done())

    async def test_each_policy_sees_what_the_one_before_let_pass(self, inside: Inside) -> None:
        async def shout(_: RequestContext, events: Sequence[AnswerEvent]) -> Sequence[AnswerEvent]:
            return [Delta(text=e.text.upper()) if isinstance(e, Delta) else e for e in events]

        async def drop_done(_: RequestContext, events: Sequence[AnswerEvent]) -> Sequence[AnswerEvent]:
            return [e for e in events if not isinstance(e, Done)]

        steps = (step([], "a", shout), step([], "b", drop_done))
        assert list(await built(inside, answer=steps).on_answer(context(), self.EVENTS)) == [Delta(text="A")]

    async def test_a_shadow_changes_nothing(self, inside: Inside) -> None:
        async def drop(_: RequestContext, events: Sequence[AnswerEvent]) -> Sequence[AnswerEvent]:
            return []

        steps = (step([], "a", drop, mode=PolicyMode.SHADOW), step([], "b", REFUSAL, mode=PolicyMode.SHADOW))
        assert await built(inside, answer=steps).on_answer(context(), self.EVENTS) is self.EVENTS

    async def test_a_refusal_ends_the_answer(self, inside: Inside) -> None:
        assert await built(inside, answer=(step([], "a", REFUSAL),)).on_answer(context(), self.EVENTS) is REFUSAL

    async def test_an_open_failure_lets_the_events_pass(self, inside: Inside) -> None:
        failing = step([], "a", DependencyError("encoder", "slow"), on_failure=FailureMode.OPEN)
        assert await built(inside, answer=(failing,)).on_answer(context(), self.EVENTS) is self.EVENTS


class TestReply:
    async def test_nothing_that_fails_changes_the_answer(self, inside: Inside) -> None:
        ran: list[str] = []
        ctx = context()
        lost = DependencyError("redis", "it is lost")
        steps = (step(ran, "a", lost), step(ran, "b", ValueError()), step(ran, "c", hang, deadline_s=0.01))
        await built(inside, reply=(*steps, step(ran, "d", None))).on_reply(ctx)
        assert ran == ["a", "b", "c", "d"]
        assert ctx.degraded == {"a", "c"}


class TestClose:
    async def test_every_finalizer_runs_whatever_happened_to_the_others(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pipeline, "CLOSE_DEADLINE_S", 0.02)
        ran: list[str] = []
        steps = (step(ran, "a", None), step(ran, "b", hang), step(ran, "c", ValueError()), step(ran, "d", None))
        await built(inside, close=steps).on_close(context(), Termination.COMPLETED)
        assert ran == ["a", "b", "c", "d"]
        for failed in ("b", "c"):
            assert inside.metric("extproc_policy_failures_total", policy=failed, dependency="none") == 1


class TestBuild:
    def test_an_absent_section_means_defaults_and_off_means_absent(self, inside: Inside) -> None:
        off = {"validate": pipeline.SETTINGS["validate"](mode=PolicyMode.OFF)}
        names = [step.name for step in pipeline.build(off, inside.services).request]
        assert "validate" not in names
        # No encoder; no pool that is balanced by keys or by the service, or whose models are loaded on demand.
        idle = ("scan", "affinity", "endpoint", "load_model")
        others = [policy for policy in pipeline.ON_REQUEST if policy.name not in idle]
        on = [policy.name for policy in others if policy.settings_type().mode is not PolicyMode.OFF]
        assert names == [name for name in on if name != "validate"]


class TestFacts:
    def test_a_fact_is_written_once(self) -> None:
        ctx = context()
        ctx.prompt_tokens = 3
        with pytest.raises(AttributeError, match="prompt_tokens"):
            ctx.prompt_tokens = 4

    def test_a_fact_without_default_is_missed_loudly(self) -> None:
        with pytest.raises(AttributeError):
            _ = context().model
