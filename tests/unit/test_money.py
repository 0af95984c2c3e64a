"""Costs: exact to the nano-unit, never negative, never a float."""

from decimal import ROUND_CEILING, Context, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.config.models import ModelPrice
from extproc.money import NANO, Price, cost_nano, decimal_from_nano, nano_from_decimal

AMOUNTS = st.integers(0, 10**18 - 1)
TOKENS = st.integers(-10, 10**12)
PRICES = st.builds(Price, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, st.just("USD"))
WIDE = Context(prec=80, rounding=ROUND_CEILING)


def test_an_answer_as_one_would_reckon_it_by_hand() -> None:
    price = ModelPrice(
        input_per_mtok="2.50", cached_input_per_mtok="1.25", output_per_mtok="10", per_request="0.001"
    ).exact
    # 600 x 2.50 + 400 x 1.25 + 50 x 10 a million, and a thousandth: 0.0025 + 0.001
    assert decimal_from_nano(cost_nano(price, 1000, 400, 50)) == Decimal("0.0035")


def test_without_a_price_for_cached_tokens_they_cost_as_any_other() -> None:
    price = ModelPrice(input_per_mtok="2.50").exact
    assert cost_nano(price, 1000, 1000, 0) == cost_nano(price, 1000, 0, 0) == 2_500_000


def test_a_fraction_of_a_nano_unit_counts_as_a_whole_one_once_a_request() -> None:
    price = ModelPrice(input_per_mtok="0.0001", output_per_mtok="0.0001").exact
    assert cost_nano(price, 1, 0, 1) == 1
    assert cost_nano(price, 5, 0, 5) == 1
    assert cost_nano(price, 6, 0, 5) == 2
    assert cost_nano(price, 0, 0, 0) == 0


@given(PRICES, TOKENS, TOKENS, TOKENS)
def test_a_cost_is_the_exact_one_rounded_up_and_never_negative(
    price: Price, input_tokens: int, cached_tokens: int, output_tokens: int
) -> None:
    cost = cost_nano(price, input_tokens, cached_tokens, output_tokens)
    assert type(cost) is int
    assert cost >= 0
    asked = max(input_tokens, 0)
    cached = max(min(cached_tokens, asked), 0)
    exact = price.per_request_nano + Fraction(
        (asked - cached) * price.input_nano_per_mtok
        + cached * price.cached_input_nano_per_mtok
        + max(output_tokens, 0) * price.output_nano_per_mtok,
        10**6,
    )
    assert 0 <= cost - exact < 1
    with localcontext(WIDE):
        assert decimal_from_nano(cost) * NANO == cost


@given(PRICES, *([st.integers(0, 10**9)] * 4))
def test_more_tokens_never_cost_less(
    price: Price, input_tokens: int, cached_tokens: int, output_tokens: int, more: int
) -> None:
    cost = cost_nano(price, input_tokens, cached_tokens, output_tokens)
    assert cost_nano(price, input_tokens, cached_tokens, output_tokens + more) >= cost
    assert cost_nano(price, input_tokens + more, min(cached_tokens, input_tokens), output_tokens) >= cost


@given(st.integers(-(10**30), 10**30))
def test_an_amount_survives_being_written_and_read(amount_nano: int) -> None:
    written = decimal_from_nano(amount_nano)
    if amount_nano >= 0:
        assert nano_from_decimal(Decimal(format(written, "f"))) == amount_nano
    else:
        with pytest.raises(ValueError, match="below zero"):
            nano_from_decimal(written)


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-0.1", "0.0000000001", "1e-10"])
def test_what_is_no_amount_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="amount of money"):
        nano_from_decimal(Decimal(amount))


@pytest.mark.parametrize(("amount", "nano"), [("1E+3", 1000 * NANO), ("0.10", NANO // 10), ("0E-12", 0), ("0", 0)])
def test_amounts_in_any_notation(amount: str, nano: int) -> None:
    assert nano_from_decimal(Decimal(amount)) == nano


@pytest.mark.parametrize("amount", ["", "-1", "1e3", "1,5", ".5", "1.", "0.0000000001", "1\n", "٣"])
def test_prices_in_the_configuration_are_plain_decimals(amount: str) -> None:
    with pytest.raises(ValueError, match="input_per_mtok"):
        ModelPrice(input_per_mtok=amount)


def test_a_price_is_text_never_a_float() -> None:
    with pytest.raises(ValueError, match="in quotes"):
        ModelPrice.model_validate_json('{"input_per_mtok": 2.5}')
