"""Answers to requests that are exactly the same: served from the store, kept in it, and fetched once for all who ask
while they are on their way.

It stands before what costs (guards, encoder, limits) among the request's policies: what is kept passed them all, under
the same settings, for the same tenant. Among the answer's it is last, so that it keeps what the client was shown. A
policy that puts into an answer what is for one client alone says so in `ctx.not_for_others`.

It is never the reason that a request fails: without the store there is no cache.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from extproc.caching import EntryName, Outcome, Quota
from extproc.config.policy import PolicyMode, PolicySettings
from extproc.dialects.answer import AnswerEvent
from extproc.dialects.interface import InvalidRequest, TokenTotals
from extproc.dialects.openai_requests import EmbeddingsRequest
from extproc.errors import DependencyError
from extproc.operation import Operation
from extproc.policies import cache_entry, cache_identity
from extproc.policies.cache_controls import Controls, controls
from extproc.policies.cache_embeddings import PartialEmbeddings
from extproc.policies.cache_entry import Collected
from extproc.policies.cache_exchange import CacheResult, Caching
from extproc.policies.cache_lookup import Lookup
from extproc.policies.cache_settings import ModelCache, Settings, Tenant
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Answer, Reject, Services, Termination, Verdict

_LEVEL = "exact"
_OPERATIONS = frozenset(Operation)
_AS_OTHERS = ModelCache()


class Cache:
    """The policy `cache`."""

    name: ClassVar[str] = "cache"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._enforced = settings.mode is PolicyMode.ENFORCE
        self._answers = services.answers
        self._version = services.answers_version
        self._quota = Quota(settings.max_entries, settings.max_bytes)
        self._metrics = services.metrics.cache
        # In the shadow nobody waits.
        self._lookup = Lookup(services.answers, services.clock, self._metrics, settings.wait_s * self._enforced)

    # The request.

    async def on_request(self, ctx: RequestContext) -> Verdict:
        if ctx.operation not in _OPERATIONS:  # a question about a model
            return CONTINUE
        ctx.caching = caching = Caching(visible=self._enforced)
        try:
            asked = controls(ctx.head.headers)
        except InvalidRequest as error:
            return Reject(error.rejection)
        essence = None if asked.no_store else ctx.request.essence()
        if essence is None or not self._is_wanted(ctx, essence):
            self._metrics.looked_up(_LEVEL, CacheResult.BYPASS)
            return CONTINUE
        self._note(ctx, caching, asked)
        try:
            answer = await self._look_up(ctx, caching, essence, asked)
        except DependencyError:
            self._metrics.looked_up(_LEVEL, "failed")
            caching.result, caching.name = CacheResult.BYPASS, None
            raise
        if answer is None:
            self._metrics.looked_up(_LEVEL, caching.result)
            return CONTINUE
        self._metrics.looked_up(_LEVEL, CacheResult.HIT)
        if self._enforced:
            caching.result = CacheResult.HIT
            self._note_saved(caching, answer.totals.prompt_tokens + answer.totals.completion_tokens)
        return answer

    def _is_wanted(self, ctx: RequestContext, essence: dict[str, Any]) -> bool:
        """Its answer is the same every time, or chance may fall once for all."""
        own = self._settings.models.get(ctx.model.name, _AS_OTHERS)
        sampled = self._settings.sampled if own.sampled is None else own.sampled
        certain = "input" in essence or essence.get("temperature") == 0 or "seed" in essence
        return own.enabled and (certain or sampled)

    def _note(self, ctx: RequestContext, caching: Caching, asked: Controls) -> None:
        own_ttl_s = self._settings.models.get(ctx.model.name, _AS_OTHERS).ttl_s
        ttl_s = self._settings.ttl_s if own_ttl_s is None else own_ttl_s
        caching.result, caching.quota = CacheResult.MISS, self._quota
        caching.ttl_s = ttl_s if asked.ttl_s is None else min(asked.ttl_s, self._settings.max_ttl_s)
        caching.refreshes, caching.max_age_s = asked.refresh, asked.max_age_s

    def _note_saved(self, caching: Caching, tokens: int) -> None:
        caching.saved_tokens = tokens
        self._metrics.saved(_LEVEL, tokens)

    async def _look_up(
        self, ctx: RequestContext, caching: Caching, essence: dict[str, Any], asked: Controls
    ) -> Answer | None:
        name = self._naming(ctx, asked.namespace)
        request = ctx.request
        if isinstance(request, EmbeddingsRequest):
            names = [name({**essence, "input": item}) for item in request.inputs]
            return await self._look_up_vectors(ctx, caching, request, names)
        caching.name = name(essence)
        if not asked.refresh:
            found = await self._lookup.in_turn(caching.name, asked.max_age_s)
            caching.token = found.token
            if found.kept is not None:
                caching.name, caching.answered_by = None, caching.name
                return Answer(found.kept.replayed, found.kept.totals, found.age_s)
        caching.collected = Collected(self._settings.max_answer_bytes)
        return None

    def _naming(self, ctx: RequestContext, namespace: str) -> Callable[[dict[str, Any]], EntryName]:
        """What is the same for all of a request, and what makes of it the name of an answer."""
        whose, principal = self._settings.tenant, ctx.principal
        tenant = f"{whose}:{principal.team if whose is Tenant.TEAM else principal.id}"
        around = cache_identity.identity(ctx, self._version, tenant, namespace)

        def name(essence: dict[str, Any]) -> EntryName:
            digest = cache_identity.exact(essence, around, ctx.default_output_tokens, self._answers.digest)
            return EntryName(tenant, ctx.model.name, namespace, digest)

        return name

    async def _look_up_vectors(
        self, ctx: RequestContext, caching: Caching, request: EmbeddingsRequest, names: list[EntryName]
    ) -> Answer | None:
        """Each input is kept by itself, and the model is asked for those that are not."""
        tokenizer, inputs = ctx.model.tokenizer, request.inputs
        if tokenizer is None and len(inputs) > 1:
            caching.result = CacheResult.BYPASS  # nobody knows how many tokens each of them has
            return None
        tokens = [0 if tokenizer is None else tokenizer.count_input(item) for item in inputs]
        partial = PartialEmbeddings(names, tokens, {}, list(range(len(names))))
        age_s = 0.0
        if not caching.refreshes:
            look = self._lookup.in_turn if len(names) == 1 else self._lookup.now
            looked = await asyncio.gather(*(look(name, caching.max_age_s) for name in names))
            partial.kept = {at: found.kept for at, found in enumerate(looked) if found.kept is not None}
            age_s = max(found.age_s for found in looked)
            caching.token = looked[0].token
        if len(partial.kept) == len(names):
            return Answer(partial.replayed, TokenTotals(partial.saved_tokens), age_s)
        if not self._enforced:
            partial.kept.clear()
        self._ask_for_the_rest(ctx, caching, request, partial)
        caching.name, caching.partial = names[0], partial
        caching.collected = Collected(self._settings.max_answer_bytes * len(names))
        return None

    def _ask_for_the_rest(
        self, ctx: RequestContext, caching: Caching, request: EmbeddingsRequest, partial: PartialEmbeddings
    ) -> None:
        if not partial.kept:
            return
        partial.missing = [position for position in partial.missing if position not in partial.kept]
        request.keep_inputs(partial.missing)
        ctx.progress.totals.prompt_tokens = partial.asked_tokens
        self._note_saved(caching, partial.saved_tokens)

    # The answer.

    async def on_answer(self, ctx: RequestContext, events: Sequence[AnswerEvent]) -> Sequence[AnswerEvent]:
        caching = ctx.caching
        if caching is None or caching.collected is None:
            return events
        if caching.partial is not None:
            events = caching.partial.put_together(events)
        caching.collected.add(events)
        return events

    # The end.

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        caching = ctx.caching
        if caching is None or caching.name is None:
            return
        answers = self._to_keep(ctx, caching) if _is_good(ctx, termination) else []
        try:
            await asyncio.gather(*(self._answers.put(*one, caching.ttl_s, self._quota) for one in answers))
            caching.stored = bool(answers)
            self._metrics.kept(len(answers), sum(len(body) for _, body in answers))
        except DependencyError as error:
            self._metrics.not_kept(error.dependency)
        finally:
            await self._release(caching, termination)

    async def _release(self, caching: Caching, termination: Termination) -> None:
        if caching.name is not None and caching.token:
            with contextlib.suppress(DependencyError):  # then the lead runs out
                await self._answers.release(caching.name, caching.token, _outcome(caching, termination))

    def _to_keep(self, ctx: RequestContext, caching: Caching) -> list[tuple[EntryName, bytes]]:
        collected, totals = caching.collected, ctx.progress.totals
        assert caching.name is not None
        if collected is None or not collected.is_whole:
            return []
        if caching.partial is None:
            answers = [(caching.name, cache_entry.encode(collected.events, totals))]
        else:
            answers = caching.partial.to_keep(collected.events, totals)
        return [one for one in answers if len(one[1]) <= self._settings.max_answer_bytes]


def _is_good(ctx: RequestContext, termination: Termination) -> bool:
    """Complete, and the same for everybody in the tenant."""
    return termination is Termination.COMPLETED and not ctx.reason and not ctx.not_for_others


def _outcome(caching: Caching, termination: Termination) -> Outcome:
    """What those who wait are told.

    A leader that broke off says nothing about the answer, so another is found. After a refusal, a failure or an answer
    that is not kept, nobody should wait for the next one: all who wait go on by themselves.
    """
    if caching.stored:
        return Outcome.STORED
    return Outcome.FAILED if termination is Termination.CANCELLED else Outcome.NOT_STORED
