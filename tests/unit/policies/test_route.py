"""Requests through the real pipeline: who serves them, and what was found out to know it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from extproc.config.policy import FailureMode, PolicyMode
from extproc.config.rules import Rule
from extproc.dialects.interface import RequestHead
from extproc.dialects.registry import resolve
from extproc.errors import DependencyError
from extproc.inference.interface import Encoding
from extproc.policies.context import RequestContext
from extproc.policies.count_tokens import CountTokens
from extproc.policies.count_tokens import Settings as CountSettings
from extproc.policies.interface import CONTINUE
from extproc.policies.route import Route, Settings
from extproc.tokenization import ModelTokenizer
from tests.helpers.journeys import Inside

PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Inside:
    return Inside(tmp_path_factory.mktemp("route"))


class Judge:
    """An encoder that finds every text so complex, and remembers what it was asked."""

    def __init__(self, complexity: float | None) -> None:
        self._complexity = complexity
        self.asked: list[str] = []

    def windows(self, text: str) -> Sequence[tuple[int, int]]:
        return [(start, min(start + 10, len(text))) for start in range(0, len(text), 10)]

    async def encode(self, texts: Sequence[str], deadline_s: float) -> Sequence[Encoding]:
        self.asked += texts
        if self._complexity is None:
            raise DependencyError("encoder", "away")
        return [Encoding(b"", complexity=self._complexity) for _ in texts]


def rules(*written: dict[str, Any]) -> tuple[Rule, ...]:
    return tuple(
        Rule.model_validate_json(orjson.dumps({"name": f"r{number}", **one})) for number, one in enumerate(written)
    )


def context(inside: Inside, text: str = "Hello!", model: str = "talker", **fields: Any) -> RequestContext:
    body = orjson.dumps({"model": model, "messages": [{"role": "user", "content": text}], **fields})
    head = RequestHead("POST", PATH, {":path": PATH, ":method": "POST", "x-request-id": "1"})
    ctx = RequestContext(head, 0.0, 0.0)
    ctx.route = resolve(head)
    ctx.body = body
    assert ctx.route.api is not None
    ctx.request = ctx.route.api.parse(head, body)
    ctx.model = inside.services.catalog.models[model]
    return ctx


async def routed(inside: Inside, ctx: RequestContext, settings: Settings, encoder: Judge | None = None) -> Route:
    route = Route(settings, dataclasses.replace(inside.services, encoder=encoder))
    assert await route.on_request(ctx) is CONTINUE
    return route


async def test_without_rules_it_is_the_models_own_pool(inside: Inside) -> None:
    ctx = context(inside)
    await routed(inside, ctx, Settings())
    assert ctx.pool is ctx.model.pool
    assert ctx.destination is not None
    assert ctx.destination.rule == "default"
    assert ctx.prompt_counts == {}


async def test_a_pool_and_a_model(inside: Inside) -> None:
    settings = Settings(rules=rules({"when": {"tools": True}, "to": {"pool": "openai"}}, {"to": {"model": "writer"}}))
    ctx = context(inside)
    await routed(inside, ctx, settings)
    assert (ctx.model.name, ctx.pool and ctx.pool.name) == ("writer", "triton")
    offered = context(inside, tools=[{"type": "function", "function": {"name": "f"}}])
    await routed(inside, offered, settings)
    assert (offered.model.name, offered.pool and offered.pool.name) == ("talker", "openai")


async def test_a_pool_that_envoy_does_not_know_yet_is_no_target(inside: Inside) -> None:
    for to in ({"pool": "triton"}, {"model": "writer"}):
        ctx = context(inside)
        ctx.reachable = frozenset({"openai"})
        await routed(inside, ctx, Settings(rules=rules({"to": to})))
        assert (ctx.model.name, ctx.pool and ctx.pool.name) == ("talker", "openai")


async def test_the_shadow_counts_and_changes_nothing(inside: Inside) -> None:
    settings = Settings(mode=PolicyMode.SHADOW, rules=rules({"name": "shadowed", "to": {"model": "writer"}}))
    ctx = context(inside)
    await routed(inside, ctx, settings)
    assert (ctx.model.name, ctx.pool and ctx.pool.name) == ("talker", "openai")
    assert inside.metric("extproc_route_rules_total", rule="shadowed") == 1


async def test_a_prompt_is_counted_once(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    original = ModelTokenizer.count_request

    def count(self: ModelTokenizer, request: Any) -> int:
        counted.append(request)
        return original(self, request)

    monkeypatch.setattr(ModelTokenizer, "count_request", count)
    settings = Settings(
        rules=rules(
            {"when": {"prompt_tokens": {"min": 500}}, "to": {"pool": "triton"}},
            {"when": {"prompt_tokens": {"min": 2}}, "to": {"model": "writer"}},
        )
    )
    ctx = context(inside)
    await routed(inside, ctx, settings)
    assert await CountTokens(CountSettings(), inside.services).on_request(ctx) is CONTINUE
    assert ctx.model.name == "writer"  # with the same tokenizer as the model that was asked for
    assert ctx.prompt_tokens == original(ctx.model.tokenizer, ctx.request)  # type: ignore[arg-type]
    assert len(counted) == 1


HARD = rules({"when": {"complexity": {"min": 0.5}}, "to": {"pool": "triton"}})


@pytest.mark.parametrize(("complexity", "pool"), [(0.6, "triton"), (0.4, "openai")])
async def test_complexity_is_that_of_the_last_user_turns_beginning(
    inside: Inside, complexity: float, pool: str
) -> None:
    judge, ctx = Judge(complexity), context(inside, "0123456789 and more")
    await routed(inside, ctx, Settings(rules=HARD), judge)
    assert judge.asked == ["0123456789"]
    assert ctx.pool is not None
    assert ctx.pool.name == pool


async def test_the_encoder_is_not_asked_for_what_no_rule_needs(inside: Inside) -> None:
    judge = Judge(0.9)
    first = rules({"name": "first", "to": {"pool": "openai"}})
    await routed(inside, context(inside), Settings(rules=(*first, *HARD)), judge)
    assert judge.asked == []
    assert Settings(rules=HARD).uses_encoder
    assert not Settings(rules=first).uses_encoder


async def test_a_lost_encoder_costs_no_request_unless_it_is_to(inside: Inside) -> None:
    ctx = context(inside)
    await routed(inside, ctx, Settings(rules=HARD), Judge(None))
    assert ctx.pool is ctx.model.pool
    assert ctx.degraded == {"route"}
    closed = Settings(rules=HARD, on_failure=FailureMode.CLOSED)
    with pytest.raises(DependencyError):
        await routed(inside, context(inside), closed, Judge(None))
