"""What an exchange costs: by how it ended and what there was of an answer."""

from types import SimpleNamespace
from typing import cast

import pytest

from extproc.config.models import ModelPrice
from extproc.dialects.interface import RequestHead, TokenTotals
from extproc.policies.account import is_charged, price_facts
from extproc.policies.context import RequestContext
from extproc.policies.interface import Termination

PRICE = ModelPrice(input_per_mtok="1", cached_input_per_mtok="0.1", output_per_mtok="2", per_request="0.5")


def exchange(
    *, prompt: int = 1000, cached: int = 0, completion: int = 0, admitted: bool, price: ModelPrice | None = PRICE
) -> RequestContext:
    ctx = RequestContext(RequestHead("POST", "/", {}), 0.0, 0.0)
    ctx.progress.totals = TokenTotals(prompt, completion, cached)
    if admitted:
        ctx.admitted = True
    model = SimpleNamespace(name="m", config=SimpleNamespace(price=price))
    ctx.model = cast("RequestContext", model)  # type: ignore[assignment]  # as much of a model as is asked for
    return ctx


@pytest.mark.parametrize(
    ("termination", "admitted", "completion", "charged"),
    [
        (Termination.COMPLETED, True, 10, True),
        (Termination.COMPLETED, True, 0, True),  # embeddings
        (Termination.COMPLETED, False, 0, False),  # answered by a policy, without a model
        (Termination.CANCELLED, True, 0, True),  # the model had its prompt
        (Termination.CANCELLED, True, 5, True),
        (Termination.CANCELLED, False, 0, False),  # left while still sending
        (Termination.UPSTREAM_ERROR, True, 0, False),
        (Termination.UPSTREAM_ERROR, True, 5, True),  # broke off within the answer
        (Termination.REJECTED, False, 0, False),
        (Termination.REJECTED, True, 5, True),  # ended by a policy within the answer
        (Termination.INTERNAL_ERROR, True, 0, False),
    ],
)
def test_who_pays(termination: Termination, admitted: bool, completion: int, charged: bool) -> None:
    ctx = exchange(admitted=admitted, completion=completion)
    assert is_charged(ctx, termination) is charged
    facts = price_facts(ctx, termination)
    assert facts == {"price_nano": 501_000_000 + 2000 * completion if charged else 0, "currency": "USD"}


def test_cached_tokens_have_their_own_price() -> None:
    facts = price_facts(exchange(admitted=True, cached=1000), Termination.COMPLETED)
    assert facts["price_nano"] == 500_100_000


def test_without_a_price_there_is_no_currency() -> None:
    facts = price_facts(exchange(admitted=True, price=None), Termination.COMPLETED)
    assert facts == {"price_nano": 0, "currency": ""}


def test_a_request_for_no_model_of_ours_costs_nothing() -> None:
    ctx = RequestContext(RequestHead("POST", "/", {}), 0.0, 0.0)
    assert price_facts(ctx, Termination.REJECTED) == {"price_nano": 0, "currency": ""}
