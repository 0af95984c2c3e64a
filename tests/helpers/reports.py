"""Users who report every wrong answer, simulated: written pairs, real embeddings, a real Redis, no guard."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from extproc.caching import EntryName, Learning, Quota, Served
from extproc.config.encoder import EncoderDevice
from extproc.inference import minilm
from extproc.inference.local import LocalEngine
from extproc.stores.answers import RedisAnswers
from extproc.stores.neighbours import RedisNeighbours
from tests.helpers.semantic import NearPair

IDENTITY = "identity"
_QUOTA = Quota(10_000, 10**9)


@dataclass
class Outcome:
    """What came of the questions around one that is kept: asked, answered from the cache, and wrongly so."""

    asked: int = 0
    served: int = 0
    wrong: int = 0


def embeddings(pairs: Sequence[NearPair]) -> dict[str, bytes]:
    engine = LocalEngine(minilm.default_folder(), EncoderDevice.CPU, 1)
    texts = {text for pair in pairs for text in (pair.one, pair.other)}
    return {text: engine.run(engine.tokenize([text]))[0].embedding for text in sorted(texts)}


class Reporters:
    """Ask what lies around kept questions, at random; what was answered from the wrong one is reported.

    An answer counts as right where the pair says so, and where it comes from the same question. A question whose entry
    was evicted is asked itself, first of all, and kept again. `learning` None: nobody reports anything.
    """

    def __init__(
        self, answers: RedisAnswers, pairs: Sequence[NearPair], vectors: Mapping[str, bytes], least: float,
        learning: Learning | None, seed: int = 1,
    ) -> None:  # fmt: skip
        self._answers, self._index = answers, RedisNeighbours(answers)
        self._pairs, self._vectors, self._least, self._learning = pairs, vectors, least, learning
        self._chance = random.Random(seed)
        self._same = {(pair.one, pair.other): pair.same for pair in pairs}
        self._kept: set[str] = set()
        self._asked = 0
        self.outcomes: dict[str, Outcome] = {pair.one: Outcome() for pair in pairs}

    async def ask(self, times: int) -> None:
        for _ in range(times):
            await self._ask(self._chance.choice(self._pairs))

    async def _ask(self, pair: NearPair) -> None:
        if pair.one not in self._kept:
            await self._keep(pair.one)
        self._asked += 1
        outcome = self.outcomes[pair.one]
        outcome.asked += 1
        found = await self._index.near(
            self._name(""), IDENTITY, self._vectors[pair.other], 1, self._least, 0.9 if self._learning else 1.0
        )
        if not found.neighbours:
            return
        nearest = found.neighbours[0]
        if nearest.similarity < max(self._least, found.threshold):
            return
        # What was served around another kept question counts there.
        outcome = self.outcomes[nearest.question]
        outcome.served += 1
        right = self._same.get((nearest.question, pair.other), False)
        outcome.wrong += not right
        if self._learning is None:
            return
        response = f"r{self._asked}"
        served = Served(response, nearest.name, IDENTITY, nearest.similarity, found.lessons)
        await self._index.served(served, self._learning)
        if not right:
            assert await self._index.wrong("team:red", response, self._learning)
            self._kept.discard(nearest.question)

    async def _keep(self, question: str) -> None:
        name = self._name(question)
        await self._answers.put(name, b"answer", 600.0, _QUOTA)
        await self._index.add(name, IDENTITY, self._vectors[question], question, _QUOTA)
        self._kept.add(question)

    def _name(self, question: str) -> EntryName:
        return EntryName("team:red", "model", "", self._answers.digest(question.encode()))
