"""Money: prices and what a request costs, in whole nano-units of the currency (1 nano = 10^-9), never a float.

Must not know: configuration, requests, stores. Decimal is for the edges, where people write and read amounts; inside,
an amount is an int, so that sums are exact in whatever order they are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

NANO_DIGITS = 9
NANO = 10**NANO_DIGITS
_MTOK = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs: nano-units per million tokens, and per request whatever its size."""

    input_nano_per_mtok: int
    cached_input_nano_per_mtok: int
    output_nano_per_mtok: int
    per_request_nano: int
    currency: str


def cost_nano(price: Price, input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
    """What these tokens cost as one request. `cached_tokens` are those of `input_tokens` that came from a cache.

    A fraction of a nano-unit counts as a whole one; it is rounded once, over the whole request. Counts may be whatever
    an upstream has reported: what can't be (below zero, more cached than there were) is taken as the nearest that can.
    """
    input_tokens = max(input_tokens, 0)
    cached_tokens = min(max(cached_tokens, 0), input_tokens)
    tokens_nano_mtok = (
        (input_tokens - cached_tokens) * price.input_nano_per_mtok
        + cached_tokens * price.cached_input_nano_per_mtok
        + max(output_tokens, 0) * price.output_nano_per_mtok
    )
    return price.per_request_nano - (-tokens_nano_mtok // _MTOK)


def nano_from_decimal(amount: Decimal) -> int:
    """An amount as written by people. Raises ValueError if it is not finite, negative, or finer than a nano-unit."""
    if not amount.is_finite() or amount < 0:
        raise ValueError("an amount of money is a number and not below zero")
    # From the digits, because Decimal's own arithmetic rounds to its context's precision.
    _, digits, exponent = amount.as_tuple()
    number, shift = int("".join(map(str, digits))), int(exponent) + NANO_DIGITS
    whole, rest = divmod(number * int(10 ** max(shift, 0)), int(10 ** max(-shift, 0)))
    if rest:
        raise ValueError(f"an amount of money has at most {NANO_DIGITS} decimal places")
    return whole


def decimal_from_nano(amount_nano: int) -> Decimal:
    """The amount as people read it, exact."""
    return Decimal((int(amount_nano < 0), tuple(map(int, str(abs(amount_nano)))), -NANO_DIGITS))
