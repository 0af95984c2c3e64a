"""Answers found by their questions, in Redis's vector sets: one set for each tenant and identity, so that no other's
answer can be found whatever the vectors are. Must not know: what makes questions the same, or when they are.
"""

from __future__ import annotations

from extproc.caching import EntryName, Learning, Neighbour, Neighbourhood, Quota, Served
from extproc.stores.answers import RedisAnswers, member, tenant_prefix
from extproc.stores.seal import Broken

_MOST_LESSONS = 1000


class RedisNeighbours:
    """A `SemanticIndex` beside the answers, with their connection, time-outs and breaker."""

    def __init__(self, answers: RedisAnswers) -> None:
        self._answers = answers
        self._find, self._add, self._served, self._wrong = (
            answers.script(f"near_{name}") for name in ("find", "add", "served", "wrong")
        )

    async def near(
        self, name: EntryName, identity: str, vector: bytes, count: int, least: float, radius: float
    ) -> Neighbourhood:
        prefix = tenant_prefix(name.tenant)
        found, threshold, lessons = await self._answers.read(
            self._find, prefix, (identity, vector, count, least, radius)
        )
        near = (self._neighbour(name, prefix, *one) for one in found)
        readable = tuple(one for one in near if one is not None)
        return Neighbourhood(readable, float(threshold), tuple(lesson.decode() for lesson in lessons))

    def _neighbour(self, like: EntryName, prefix: str, entry: bytes, score: bytes, sealed: bytes) -> Neighbour | None:
        """None for what can't be read: damaged, forged, or moved from under another name."""
        label = entry.decode()
        try:
            question = self._answers.unseal(f"{prefix}q:{label}", sealed).decode()
        except (Broken, UnicodeDecodeError):
            return None
        name = EntryName(like.tenant, like.model, like.namespace, label.rpartition("/")[2])
        return Neighbour(name, float(score), question) if member(name) == label else None

    async def add(self, name: EntryName, identity: str, vector: bytes, question: str, quota: Quota) -> None:
        prefix, entry = tenant_prefix(name.tenant), member(name)
        sealed = self._answers.seal(f"{prefix}q:{entry}", question.encode("utf-8", "surrogatepass"))
        await self._answers.write(self._add, prefix, (entry, identity, vector, sealed, quota.size_bytes))

    async def served(self, served: Served, learning: Learning) -> None:
        fading = learning.step * learning.target_error_rate
        arguments = (
            served.response, member(served.name), served.identity, served.similarity,
            int(learning.remembered_s * 1000), fading, *served.lessons,
        )  # fmt: skip
        await self._answers.write(self._served, tenant_prefix(served.name.tenant), arguments)

    async def wrong(self, tenant: str, response: str, learning: Learning) -> bool:
        remembered_ms = int(learning.remembered_s * 1000)
        rise = learning.step * (1 - learning.target_error_rate)
        arguments = (response, rise, remembered_ms, learning.radius, _MOST_LESSONS)
        return bool(await self._answers.write(self._wrong, tenant_prefix(tenant), arguments))
