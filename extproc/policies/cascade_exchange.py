"""What is known of one exchange's cascade: who is tried first, how its answer was judged, and what the try used.

Must not know: how an answer is judged, or who is asked next.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from extproc.dialects.answer import Usage
from extproc.dialects.interface import TokenTotals
from extproc.money import Price
from extproc.routing.catalog import Cascade, Model
from extproc.routing.judge import Checks


class Outcome(StrEnum):
    """Whose answer the client gets: that of the small model, or of the one that was asked for."""

    KEPT = "kept"
    ESCALATED = "escalated"


class Cascading(Struct):
    """Made by `route`, decided by `cascade`. `output_limit_tokens`: the cap on the small model's answer where the
    request sets none; `prompt_tokens`: by its own tokenizer.

    `outcome` None: the answer is judged, or has not come. `reason`: why it was not good enough, or why it was kept all
    the same. `said` and `usage`: what came of it so far, while nobody else knows of it; `tokens`: how many that are at
    least. `spent`: what it used, where the client never saw it.
    """

    cascade: Cascade
    checks: Checks
    output_limit_tokens: int
    prompt_tokens: int | None
    strips_logprobs: bool
    outcome: Outcome | None = None
    reason: str = ""
    said: list[str] = []
    usage: Usage | None = None
    tokens: int = 0
    spent: TokenTotals | None = None

    @property
    def first(self) -> Model:
        """The small model."""
        return self.cascade.first

    @property
    def wants_logprobs(self) -> bool:
        return self.checks.cascade.min_logprob is not None

    @property
    def price(self) -> Price | None:
        """Of the small model."""
        price = self.first.config.price
        return None if price is None else price.exact

    def used(self) -> TokenTotals:
        """What the small model has used for what came of its answer: its own word, or our count. Nothing of which
        nothing came."""
        usage = self.usage or Usage(None, None)
        text, tokenizer = "".join(self.said), self.first.tokenizer
        counted = self.tokens if tokenizer is None else tokenizer.count_text(text)
        completion = counted if usage.completion_tokens is None else usage.completion_tokens
        if not completion and not self.tokens:
            return TokenTotals()
        prompt = (self.prompt_tokens or 0) if usage.prompt_tokens is None else usage.prompt_tokens
        return TokenTotals(prompt, completion, usage.cached_tokens or 0)
