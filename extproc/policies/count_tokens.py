"""How many tokens the prompt has, and the answer had. What the upstream itself reports wins.

The prompt is counted exactly, chat template included, and refused if it leaves no room in the context window. The
answer is counted from its text when it is over, whole or broken off, unless the upstream said how much it was: a
missing usage is never free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, ClassVar

import pydantic

from extproc.config.policy import PolicySettings
from extproc.dialects.answer import AnswerEvent, Delta, Done, Usage
from extproc.dialects.interface import InvalidRequest
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Reject, Services, Termination, Verdict
from extproc.policies.prompt_tokens import INLINE_LIMIT_BYTES, counted
from extproc.rejection import Rejection, invalid_request
from extproc.routing.catalog import Model


class Settings(PolicySettings):
    """Exact token counts for prompts and answers."""

    inline_limit_bytes: Annotated[int, pydantic.Field(ge=0)] = INLINE_LIMIT_BYTES
    """A body larger than this is counted in a thread, so that it doesn't delay the other streams of the worker."""


class CountTokens:
    name: ClassVar[str] = "count_tokens"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._inline_limit_bytes = settings.inline_limit_bytes

    async def on_request(self, ctx: RequestContext) -> Verdict:
        model = ctx.model
        try:
            if model.tokenizer is not None:  # on record, also of what doesn't fit
                prompt_tokens = await counted(ctx, model.tokenizer, self._inline_limit_bytes)
                ctx.prompt_tokens = ctx.progress.totals.prompt_tokens = prompt_tokens
            measured = await measure(ctx, model, self._inline_limit_bytes)
        except InvalidRequest as error:
            return Reject(error.rejection)
        if isinstance(measured, Rejection):
            return Reject(measured)
        _, ctx.default_output_tokens = measured
        return CONTINUE

    async def on_answer(self, ctx: RequestContext, events: Sequence[AnswerEvent]) -> Sequence[AnswerEvent]:
        progress = ctx.progress
        for event in events:
            if type(event) is Delta:
                progress.text += (event.reasoning, event.text) if event.reasoning else (event.text,)
                if event.refusal:
                    progress.text.append(event.refusal)
                if event.tool_calls:
                    progress.text += _tool_call_texts(event)
            elif type(event) is Usage:
                _believe(ctx, event)
            elif type(event) is Done:
                await self._count_answer(ctx)
        return events

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        cascading = ctx.cascading
        if cascading is not None and cascading.outcome is None and ctx.admitted:  # broken off while it was judged
            used, totals = cascading.used(), ctx.progress.totals
            totals.prompt_tokens = used.prompt_tokens or cascading.prompt_tokens or totals.prompt_tokens
            totals.completion_tokens, totals.cached_tokens = used.completion_tokens, used.cached_tokens
        if ctx.progress.text:  # broken off: Done, which counts and clears the text, never came
            await self._count_answer(ctx)

    async def _count_answer(self, ctx: RequestContext) -> None:
        """Count what came, if nobody else did; a broken-off stream may have told its usage only up to then."""
        progress, text = ctx.progress, "".join(ctx.progress.text)
        progress.text.clear()
        tokenizer = ctx.serving_model.tokenizer
        if tokenizer is None or not text or progress.upstream_usage:
            return
        if len(text) <= self._inline_limit_bytes:
            progress.totals.completion_tokens = tokenizer.count_text(text)
        else:
            progress.totals.completion_tokens = await asyncio.to_thread(tokenizer.count_text, text)


async def measure(
    ctx: RequestContext, model: Model, inline_limit_bytes: int = INLINE_LIMIT_BYTES
) -> tuple[int | None, int] | Rejection:
    """How many tokens the prompt has (None: nobody can tell), and how many an answer may have where the request sets no
    cap; a rejection where they don't fit into the model's window. Raises InvalidRequest."""
    asked = ctx.request.output_limit_tokens
    cap = 0 if asked == 0 else model.output_cap_tokens  # some generate nothing
    if model.tokenizer is None:
        return None, cap
    prompt_tokens = await counted(ctx, model.tokenizer, inline_limit_bytes)
    window = model.config.context_window
    if prompt_tokens + (asked or 0) > window or prompt_tokens >= window:
        return _too_long(window, prompt_tokens, asked)
    return prompt_tokens, min(cap, window - prompt_tokens)


def _believe(ctx: RequestContext, usage: Usage) -> None:
    totals = ctx.progress.totals
    if usage.prompt_tokens is not None:
        totals.prompt_tokens = usage.prompt_tokens
    if usage.completion_tokens is not None:
        totals.completion_tokens = usage.completion_tokens
        ctx.progress.upstream_usage = True
    if usage.cached_tokens is not None:
        totals.cached_tokens = usage.cached_tokens


def _tool_call_texts(event: Delta) -> list[str]:
    """Names and arguments are what the model generated; ids and types are not."""
    functions = [call.get("function") or {} for call in event.tool_calls or ()]
    return [str(function.get(part) or "") for function in functions for part in ("name", "arguments")]


def _too_long(window: int, prompt_tokens: int, asked: int | None) -> Rejection:
    wanted = f"{prompt_tokens} in the prompt" + (f" and {asked} for the answer" if asked else "")
    return invalid_request(
        f"This model's maximum context length is {window} tokens. However, you asked for {wanted}.",
        "messages",
        "context_length_exceeded",
        reason="context_length_exceeded",
    )
