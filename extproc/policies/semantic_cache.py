"""Answers to questions that ask for the same in other words.

Everything but the last user turn must match exactly (`cache_identity.surroundings`); the turn itself passes three
gates: its embedding is similar enough to one that has an answer, the deterministic guard (`detection.near_misses`)
finds nothing that speaks against it, and the learned verifier says that they ask for the same. Stands after what
redacts, so that nothing else is embedded or kept, and before what is charged.

Answers are kept by the policy `cache`; this one lets them be found. Reports of wrong answers (`POST /v1/feedback`)
evict them and raise the threshold around their question. It is never the reason that a request fails.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from extproc.caching import EntryName, Found, Learning, Neighbour, Served
from extproc.config.policy import PolicyMode, PolicySettings
from extproc.detection.near_misses import NearMiss
from extproc.detection.near_misses import compared as near_miss
from extproc.detection.near_misses.features import Features, features
from extproc.dialects.feedback import Feedback
from extproc.errors import DependencyError
from extproc.policies import cache_entry, cache_identity
from extproc.policies.cache_entry import Kept
from extproc.policies.cache_exchange import CacheResult, Caching
from extproc.policies.context import RequestContext
from extproc.policies.interface import CONTINUE, Answer, Services, Termination, Verdict
from extproc.policies.semantic_exchange import Asked
from extproc.policies.semantic_settings import ModelSemanticCache, Settings
from extproc.policies.semantic_vector import of_question

_LEVEL = "semantic"
_AS_OTHERS = ModelSemanticCache()
SIMILARITY = "x-extproc-cache-similarity"
DEBUG = "x-extproc-cache-debug"


class Gate(StrEnum):
    """Where a candidate ended, beside the reasons of `NearMiss`."""

    SERVED = "served"
    LEARNED = "learned"
    VERIFIER = "verifier"
    GONE = "gone"


class SemanticCache:
    """The policy `semantic_cache`."""

    name: ClassVar[str] = "semantic_cache"
    settings_type: ClassVar[type[PolicySettings]] = Settings

    def __init__(self, settings: Settings, services: Services) -> None:
        self._settings = settings
        self._enforced = settings.mode is PolicyMode.ENFORCE
        self._answers, self._index = services.answers, services.neighbours
        self._verifier = services.verifier if settings.uses_verifier else None
        self._version = services.answers_version
        self._metrics = services.metrics.cache
        self._learning = Learning(
            settings.target_error_rate, settings.learning_step, settings.learning_radius, settings.feedback_s
        )

    # The request.

    async def on_request(self, ctx: RequestContext) -> Verdict:
        caching = ctx.caching
        own = self._settings.models.get(ctx.model_name, _AS_OTHERS)
        if caching is None or caching.name is None or ctx.scan is None or not own.enabled:
            return CONTINUE
        essence = ctx.request.essence()
        name = caching.name
        around = cache_identity.identity(ctx, self._version, name.tenant, name.namespace)
        turn = None if essence is None else cache_identity.surroundings(essence, around, self._answers.digest)
        if turn is None or not 0 < len(turn.question.encode("utf-8", "replace")) <= self._settings.max_question_bytes:
            return CONTINUE
        vector = await of_question(ctx.scan, turn.question)
        if vector is None:
            return CONTINUE
        ctx.asked = asked = Asked(turn.digest, turn.question, vector)
        if caching.refreshes:
            return CONTINUE
        threshold = self._settings.threshold if own.threshold is None else own.threshold
        try:
            answer = await self._find(ctx, caching, asked, threshold)
        except DependencyError:
            self._metrics.looked_up(_LEVEL, "failed")
            raise
        self._metrics.looked_up(_LEVEL, CacheResult.MISS if answer is None else CacheResult.SEMANTIC)
        return CONTINUE if answer is None else answer

    async def _find(self, ctx: RequestContext, caching: Caching, asked: Asked, threshold: float) -> Answer | None:
        assert caching.name is not None
        settings = self._settings
        found = await self._index.near(
            caching.name, asked.identity, asked.vector, settings.candidates, threshold, settings.learning_radius
        )
        mine = features(asked.question) if found.neighbours else None
        told = []
        answer = None
        for candidate in found.neighbours:
            assert mine is not None
            gate, kept = await self._judge(asked, mine, candidate, max(threshold, found.threshold), caching.max_age_s)
            self._metrics.judged(gate)
            told.append(f"{candidate.similarity:.4f} {gate}")
            if kept is not None:
                served = Served(ctx.request_id, candidate.name, asked.identity, candidate.similarity, found.lessons)
                answer = self._answer(caching, asked, served, *kept)
                break
        if settings.debug_headers:
            ctx.response_headers.append((DEBUG, ", ".join(told) or "none near"))
        return answer

    async def _judge(
        self, asked: Asked, mine: Features, candidate: Neighbour, threshold: float, max_age_s: float | None
    ) -> tuple[Gate | NearMiss, tuple[Kept, float] | None]:
        """Where the candidate ends; with its answer and age, where it is to be served."""
        if candidate.similarity < threshold:
            return Gate.LEARNED, None
        if asked.question != candidate.question:
            reason = near_miss(mine, features(candidate.question))
            if reason is not None:
                return reason, None
            if not await self._is_verified(asked.question, candidate.question):
                return Gate.VERIFIER, None
        kept = await self._read(candidate.name, max_age_s)
        return (Gate.GONE, None) if kept is None else (Gate.SERVED, kept)

    async def _is_verified(self, one: str, other: str) -> bool:
        if self._verifier is None:
            return True
        deadline_s = self._settings.deadline_s or 1.0
        return await self._verifier.same(one, other, deadline_s) >= self._settings.verifier_threshold

    async def _read(self, name: EntryName, max_age_s: float | None) -> tuple[Kept, float] | None:
        got = await self._answers.get(name)
        if not isinstance(got, Found) or (max_age_s is not None and got.age_s > max_age_s):
            return None
        try:
            return cache_entry.decode(got.body), got.age_s
        except ValueError:
            await self._answers.delete(name)
            return None

    def _answer(self, caching: Caching, asked: Asked, served: Served, kept: Kept, age_s: float) -> Answer:
        if self._enforced:  # the shadow leaves no trace but what is counted
            asked.served = served
            caching.result, caching.visible = CacheResult.SEMANTIC, True
            caching.saved_tokens = kept.prompt_tokens + kept.completion_tokens
            self._metrics.saved(_LEVEL, caching.saved_tokens)
        return Answer(kept.replayed, kept.totals, age_s, ((SIMILARITY, f"{served.similarity:.4f}"),))

    # The end.

    async def on_close(self, ctx: RequestContext, termination: Termination) -> None:
        caching, asked = ctx.caching, ctx.asked
        if caching is None:
            return
        try:
            if caching.stored and asked is not None and caching.name is not None and caching.quota is not None:
                await self._index.add(caching.name, asked.identity, asked.vector, asked.question, caching.quota)
            elif asked is not None and asked.served is not None:
                await self._index.served(asked.served, self._learning)
            elif caching.answered_by is not None:
                await self._index.served(Served(ctx.request_id, caching.answered_by), self._learning)
        except DependencyError as error:
            self._metrics.not_kept(error.dependency)

    # What users say of it.

    async def on_feedback(self, ctx: RequestContext, feedback: Feedback) -> None:
        if feedback.good or not self._enforced:
            return
        principal = ctx.principal
        known = False
        for tenant in (f"team:{principal.team}", f"principal:{principal.id}"):
            known = await self._index.wrong(tenant, feedback.response, self._learning) or known
        self._metrics.reported(known)
