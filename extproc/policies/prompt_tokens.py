"""A prompt's tokens, counted once for each tokenizer, whoever asks first: a rule of `route`, or `count_tokens`."""

from __future__ import annotations

import asyncio

from extproc.policies.context import RequestContext
from extproc.tokenization import ModelTokenizer

INLINE_LIMIT_BYTES = 65536
"""A longer body is counted in a thread, so that it doesn't delay the other streams of the worker."""


async def counted(ctx: RequestContext, tokenizer: ModelTokenizer, inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> int:
    """Raises InvalidRequest if the prompt can't be rendered."""
    known = ctx.prompt_counts.get(tokenizer)
    if known is not None:
        return known
    if len(ctx.body) <= inline_limit_bytes:
        tokens = tokenizer.count_request(ctx.request)
    else:
        tokens = await asyncio.to_thread(tokenizer.count_request, ctx.request)
    ctx.prompt_counts[tokenizer] = tokens
    return tokens
