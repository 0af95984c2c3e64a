"""What the policy `endpoint` does: takes for each request, tells Envoy unless it is shadowed, gives back at the end."""

import json
from pathlib import Path

import pytest

from extproc import config
from extproc.config.policy import PolicyMode, PolicySettings
from extproc.dialects.interface import RequestHead
from extproc.dialects.registry import resolve
from extproc.policies.choose_endpoint import ChooseEndpoint
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Termination
from extproc.routing.endpoints import Endpoints
from tests.helpers.journeys import Inside

CONFIG = """
keys: {{hash_secret: 0123456789abcdef}}
models: {{m: {{pool: openai, operations: [chat], context_window: 100}}}}
pools:
  openai: {{dialect: openai, model: x, balancing: {balancing}, clusters: {{c: {{endpoints: ["10.0.0.1:8000"]}}}}}}
"""


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path)


def endpoints_of(inside: Inside, balancing: str = "least_tokens") -> Endpoints | None:
    inside.services.endpoints.take_up(config.parse(CONFIG.format(balancing=balancing), {}, {}))
    return inside.services.endpoints.of("openai")


def context(inside: Inside) -> RequestContext:
    head = RequestHead("POST", "/v1/chat/completions", {})
    ctx = RequestContext(head, 0.0, 0.0)
    api = resolve(head).api
    assert api is not None
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
    ctx.request = api.parse(head, json.dumps(body).encode())
    ctx.prompt_tokens = 7
    ctx.pool = inside.services.catalog.pools["openai"]
    return ctx


@pytest.mark.parametrize("mode", [PolicyMode.ENFORCE, PolicyMode.SHADOW])
@pytest.mark.parametrize("termination", Termination)
async def test_whatever_the_end_all_is_given_back(inside: Inside, mode: PolicyMode, termination: Termination) -> None:
    endpoints = endpoints_of(inside)
    assert endpoints is not None
    policy, ctx = ChooseEndpoint(PolicySettings(mode=mode), inside.services), context(inside)
    assert await policy.on_request(ctx) is CONTINUE
    assert ctx.choice is not None
    assert (ctx.choice.order, ctx.choice.named) == (("10.0.0.1:8000",), mode is PolicyMode.ENFORCE)
    assert endpoints.own == {"10.0.0.1:8000": 27}
    await policy.on_close(ctx, termination)
    assert endpoints.own == {}
    labels = {"pool": "openai", "strategy": "least_tokens", "outcome": "no_answer"}
    assert inside.metric("extproc_endpoint_choices_total", **labels) == 1


async def test_where_envoy_chooses_nothing_is_counted(inside: Inside) -> None:
    assert endpoints_of(inside, "round_robin") is None
    policy, ctx = ChooseEndpoint(PolicySettings(), inside.services), context(inside)
    assert await policy.on_request(ctx) is CONTINUE
    await policy.on_close(ctx, Termination.COMPLETED)
    assert ctx.choice is None
