"""Whether a cascade's small model can be tried with a request, and what its answer has to be."""

from __future__ import annotations

from typing import Any

from extproc.dialects.interface import InferenceRequest, InvalidRequest
from extproc.dialects.openai_requests import OpenAiRequest
from extproc.policies.cascade_exchange import Cascading
from extproc.policies.context import RequestContext
from extproc.policies.count_tokens import measure
from extproc.rejection import Rejection
from extproc.routing.catalog import Cascade
from extproc.routing.json_answers import JsonShape
from extproc.routing.judge import checks_of


async def cascading(ctx: RequestContext, cascade: Cascade) -> Cascading | None:
    """None: it wants several answers, or the small model can't take it (too long for its window, a parameter that its
    dialect has no word for)."""
    request, first = ctx.request, cascade.first
    if not isinstance(request, OpenAiRequest) or request.choices != 1 or first.pool.dialect.check(request) is not None:
        return None
    try:
        measured = await measure(ctx, first)
    except InvalidRequest:
        return None
    if isinstance(measured, Rejection):
        return None
    prompt_tokens, output_limit_tokens = measured
    checks = checks_of(cascade.config, shape_of(request), stream=request.stream)
    return Cascading(cascade, checks, output_limit_tokens, prompt_tokens, not _asks_for_logprobs(request))


def shape_of(request: InferenceRequest) -> JsonShape | None:
    """What its `response_format` says; None: nothing of JSON."""
    wanted = request.fields.get("response_format") if isinstance(request, OpenAiRequest) else None
    if not isinstance(wanted, dict):
        return None
    if wanted.get("type") == "json_object":
        return JsonShape(is_object=True)
    if wanted.get("type") != "json_schema":
        return None
    schema: Any = (wanted.get("json_schema") or {}).get("schema")
    return JsonShape(schemas=(schema,)) if isinstance(schema, dict) else JsonShape()


def _asks_for_logprobs(request: OpenAiRequest) -> bool:
    """A completion's 0 asks for those of the chosen tokens."""
    wanted = request.fields.get("logprobs")
    return wanted is not None and wanted is not False
