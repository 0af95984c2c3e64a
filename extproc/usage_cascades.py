"""What cascades saved: what was spent, and an estimate of what the models that were asked for would have cost.

Must not know: where records come from, or how the sums are shown. Memory is bounded by the number of cascades, models
and reasons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from extproc.money import Price, cost_nano


class CascadeUse(Struct):
    """The requests of one cascade for one model, in one currency. `escalated`: by why the small model's answer was not
    good enough. `large_nano` is an estimate: for what the small model answered, its tokens at the large one's price."""

    requests: int = 0
    kept: int = 0
    escalated: Counter[str] = field(default_factory=Counter)
    tried_nano: int = 0
    cost_nano: int = 0
    large_nano: int = 0

    @property
    def saved_nano(self) -> int:
        """Below zero where trying costs more than it saves."""
        return self.large_nano - self.cost_nano


class Cascades:
    """By cascade, model and currency. `prices`: those of models by name, as they are now."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = prices
        self._uses: dict[tuple[str, str, str], CascadeUse] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """One more request, if it was answered through a cascade. Raises ValueError for a count that is none."""
        name, _, outcome = str(record.get("cascade") or "").partition("/")
        if outcome not in ("kept", "escalated"):
            return
        model = str(record.get("model") or "")
        cost = _count(record, "price_nano")
        tried = _count(record, "tried_nano")
        price = self._prices.get(model)
        currency = str(record.get("currency") or (price.currency if price is not None else ""))
        use = self._uses.setdefault((name, model, currency), CascadeUse())
        use.requests += 1
        use.cost_nano += cost
        if outcome == "escalated":
            use.escalated[str(record.get("cascade_reason") or "")] += 1
            use.tried_nano += tried
            use.large_nano += cost - tried
        else:
            use.kept += 1
            use.large_nano += _at(price, record)

    def uses(self) -> Sequence[tuple[tuple[str, str, str], CascadeUse]]:
        """Sorted by cascade, model and currency."""
        return sorted(self._uses.items(), key=lambda item: item[0])


def _at(price: Price | None, record: Mapping[str, Any]) -> int:
    if price is None:
        return 0
    tokens = (_count(record, name) for name in ("prompt_tokens", "cached_tokens", "completion_tokens"))
    return cost_nano(price, *tokens)


def _count(record: Mapping[str, Any], name: str) -> int:
    return int(record.get(name) or 0)
