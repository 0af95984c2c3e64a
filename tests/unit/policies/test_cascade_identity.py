"""What a cascade's answers are kept under: the model that was asked for, apart from those of requests that have no
cascade, or another."""

from pathlib import Path

import orjson

from extproc.config.cascades import Cascade as CascadeConfig
from extproc.dialects.interface import RequestHead
from extproc.dialects.registry import resolve
from extproc.policies.cache_identity import identity
from extproc.policies.context import RequestContext
from extproc.policies.route_cascade import cascading
from extproc.routing import catalog
from extproc.routing.catalog import Cascade
from tests.helpers.journeys import Inside

HEAD = RequestHead("POST", "/v1/chat/completions", {})


async def context(known: catalog.Catalog, cascade: Cascade | None) -> RequestContext:
    ctx = RequestContext(HEAD, 0.0, 0.0)
    ctx.route = resolve(HEAD)
    ctx.body = orjson.dumps({"model": "writer", "messages": [{"role": "user", "content": "Hi"}]})
    ctx.request = ctx.api.parse(HEAD, ctx.body)
    ctx.model = known.models["writer"]
    ctx.cascading = None if cascade is None else await cascading(ctx, cascade)
    ctx.pool = ctx.model.pool if ctx.cascading is None else ctx.cascading.first.pool
    return ctx


async def test_answers_are_kept_apart(tmp_path: Path) -> None:
    known = Inside(tmp_path).services.catalog
    talker = known.models["talker"]
    one = CascadeConfig(first="talker", min_logprob=-0.5)
    cascades = [
        None,
        catalog.cascade_of("one", one, talker),
        catalog.cascade_of("one", one.model_copy(update={"min_logprob": -0.6}), talker),
        catalog.cascade_of("two", one, talker),
    ]
    identities = [identity(await context(known, cascade), "v", "team:t", "") for cascade in cascades]
    assert len({repr(one) for one in identities}) == len(cascades)
    assert all("writer" in one and "talker" not in one for one in identities)
    again = identity(await context(known, catalog.cascade_of("one", one, talker)), "v", "team:t", "")
    assert again == identities[1]
