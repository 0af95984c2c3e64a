"""Embeddings of one request, some of which are kept from before: what is asked for, and how the answer is put together.

Must not know: where they are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, structs

from extproc.caching import EntryName
from extproc.dialects.answer import AnswerEvent, Done, Embedding, Usage
from extproc.dialects.interface import TokenTotals
from extproc.policies.cache_entry import Kept, StoredEmbedding, encode


class PartialEmbeddings(Struct):
    """One name and one count of tokens for each input; what is kept, by input; and the inputs the model is asked for,
    in the order in which it gets them."""

    names: list[EntryName]
    tokens: list[int]
    kept: dict[int, Kept]
    missing: list[int]
    told: bool = False

    @property
    def saved_tokens(self) -> int:
        return sum(kept.prompt_tokens for kept in self.kept.values())

    @property
    def asked_tokens(self) -> int:
        return sum(self.tokens[position] for position in self.missing)

    @property
    def replayed(self) -> tuple[AnswerEvent, ...]:
        """The whole answer, where nothing is missing."""
        return (*self.vectors, Done())

    @property
    def vectors(self) -> list[AnswerEvent]:
        """What is kept, where it belongs."""
        return [
            structs.replace(event, index=position)
            for position, kept in sorted(self.kept.items())
            for event in kept.events
        ]

    def put_together(self, events: Sequence[AnswerEvent]) -> Sequence[AnswerEvent]:
        """The model's answer to what it was asked, as the answer to the client's request."""
        if not self.kept:
            return events
        passed: list[AnswerEvent] = []
        for event in events:
            if isinstance(event, Embedding):
                passed.append(structs.replace(event, index=self._place(event.index), raw=None))
            elif isinstance(event, Usage):
                self.told = True
                passed.append(self._usage(event.prompt_tokens))
            elif type(event) is Done:
                passed += self.vectors if self.told else [*self.vectors, self._usage(None)]
                passed.append(event)
            else:
                passed.append(event)
        return passed

    def to_keep(self, events: Sequence[AnswerEvent], totals: TokenTotals) -> list[tuple[EntryName, bytes]]:
        """Each vector that the model was asked for, under its own name. A single one's tokens are as told."""
        if len(self.names) == 1:
            self.tokens = [totals.prompt_tokens]
        return [
            (self.names[event.index], encode([structs.replace(event, index=0)], TokenTotals(self.tokens[event.index])))
            for event in events
            if isinstance(event, StoredEmbedding) and event.index in self.missing
        ]

    def _place(self, index: int) -> int:
        """An index that the model was not asked for stands for none of the client's inputs."""
        return self.missing[index] if index < len(self.missing) else len(self.names) + index

    def _usage(self, prompt_tokens: int | None) -> Usage:
        return Usage((self.asked_tokens if prompt_tokens is None else prompt_tokens) + self.saved_tokens, 0)
