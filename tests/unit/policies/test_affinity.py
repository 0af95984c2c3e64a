"""What the policy does with a key: nothing where the pool makes none, and only counts where it is shadowed."""

import dataclasses
import json
from pathlib import Path

import pytest

from extproc.config.balancing import ConsistentHash, HashBy
from extproc.config.policy import PolicyMode, PolicySettings
from extproc.dialects.interface import RequestHead
from extproc.dialects.registry import resolve
from extproc.policies.affinity import KeepToEndpoint
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE
from extproc.routing.affinity import affinity
from tests.helpers.journeys import Inside

BY_SESSION = ConsistentHash(by=HashBy.HEADER, header="x-session")


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path)


async def after(inside: Inside, mode: PolicyMode, hashing: ConsistentHash | None, **headers: str) -> RequestContext:
    head = RequestHead("POST", "/v1/chat/completions", {"x-" + name: value for name, value in headers.items()})
    ctx = RequestContext(head, 0.0, 0.0)
    api = resolve(head).api
    assert api is not None
    ctx.request = api.parse(head, json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode())
    pool = next(iter(inside.services.catalog.pools.values()))
    ctx.pool = dataclasses.replace(pool, name="p", affinity=affinity(hashing, b"a secret of sixteen"))
    policy = KeepToEndpoint(PolicySettings(mode=mode), inside.services)
    assert await policy.on_request(ctx) is CONTINUE
    return ctx


async def test_a_key_is_made_and_counted(inside: Inside) -> None:
    ctx = await after(inside, PolicyMode.ENFORCE, BY_SESSION, session="one")
    assert ctx.affinity_key is not None
    assert (await after(inside, PolicyMode.ENFORCE, BY_SESSION)).affinity_key is None
    assert inside.metric("extproc_affinity_requests_total", pool="p", key="made") == 1
    assert inside.metric("extproc_affinity_requests_total", pool="p", key="none") == 1


async def test_shadowed_it_only_counts(inside: Inside) -> None:
    assert (await after(inside, PolicyMode.SHADOW, BY_SESSION, session="one")).affinity_key is None
    assert inside.metric("extproc_affinity_requests_total", pool="p", key="made") == 1


async def test_a_pool_that_is_balanced_otherwise_has_no_keys(inside: Inside) -> None:
    assert (await after(inside, PolicyMode.ENFORCE, None, session="one")).affinity_key is None
