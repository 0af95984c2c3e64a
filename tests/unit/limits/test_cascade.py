"""Both models of a cascade are paid for: what is drawn, settled and on record is their sum, to the last billionth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from extproc.clock import Clock
from extproc.config.cascades import LargeFails
from extproc.exchange.messages import HeadersReply, ImmediateReply
from extproc.limits import Admission, Charge, Lost, Measure
from extproc.money import cost_nano
from extproc.policies.limit_rules import Size
from extproc.policies.limit_settings import Budget, BudgetPeriod, BudgetScope, ExtraLimit, Scope, Settings
from extproc.stores.local_share import LocalLimiter
from tests.helpers.cascaded import CONFIG, LARGE_PRICE, SMALL_PRICE, Answers, answered, asked, asks, small_first
from tests.helpers.cascades import SURE, UNSURE, piece, whole
from tests.helpers.journeys import Inside

BUDGET = Budget(scope=BudgetScope.KEY, per=BudgetPeriod.TOTAL, amount="1.0")
WORDS = ("first ", "and ", "more ", "words")
UNSURE_ANSWER = whole(WORDS, UNSURE, (11, 5))
SMALL_NANO = cost_nano(SMALL_PRICE.exact, 11, 0, 5)
LARGE_NANO = cost_nano(LARGE_PRICE.exact, 7, 0, 3)


class Watched(LocalLimiter):
    """Remembers what was drawn and settled; draws no more if it is `full`."""

    def __init__(self, *, full: bool = False) -> None:
        super().__init__(Clock())
        self.full = full
        self.charges: Sequence[Charge] = ()
        self.drawn: list[Sequence[int]] = []
        self.settled: list[Sequence[int]] = []

    async def reserve(self, reservation: str, charges: Sequence[Charge], ttl_s: float, lost: Lost) -> Admission:
        self.charges = charges
        return await super().reserve(reservation, charges, ttl_s, lost)

    async def extend(self, reservation: str, more: Sequence[int]) -> bool:
        self.drawn.append(more)
        return not self.full and await super().extend(reservation, more)

    async def settle(self, reservation: str, actual: Sequence[int]) -> None:
        self.settled.append(actual)
        await super().settle(reservation, actual)

    def of(self, amounts: Sequence[int], measure: Measure) -> set[int]:
        pairs = zip(self.charges, amounts, strict=True)
        return {amount for charge, amount in pairs if charge.limit.measure is measure}


def inside_with(directory: Path, limiter: Watched, **config: Any) -> Inside:
    output = ExtraLimit(scope=Scope.GLOBAL, measure=Measure.OUTPUT_TOKENS, amount=1000)
    limits = Settings(budgets={"b": BUDGET}, limits={"out": output})
    return small_first(directory, CONFIG.model_copy(update=config), {"limit": limits}, limiter)


async def test_both_tries_are_settled(tmp_path: Path) -> None:
    limiter = Watched()
    inside = inside_with(tmp_path, limiter)
    asks(inside, Answers())
    await inside.exchange([*asked(), *answered(UNSURE_ANSWER)])
    ((drawn,), (settled,)) = limiter.drawn, limiter.settled
    assert limiter.of(drawn, Measure.TOKENS) == {16}
    assert limiter.of(drawn, Measure.MONEY) == {SMALL_NANO}
    assert limiter.of(settled, Measure.TOKENS) == {11 + 5 + 7 + 3}
    assert limiter.of(settled, Measure.OUTPUT_TOKENS) == {5 + 3}
    assert limiter.of(settled, Measure.REQUESTS) == {1}
    assert limiter.of(settled, Measure.MONEY) == {SMALL_NANO + LARGE_NANO}
    (event,) = inside.usage.events
    assert (event["price_nano"], event["tried_nano"]) == (SMALL_NANO + LARGE_NANO, SMALL_NANO)
    assert (event["tried_tokens"], event["prompt_tokens"], event["completion_tokens"]) == (16, 7, 3)
    assert SMALL_NANO == 1 + 1_100 + 1  # billionths: a request, 11 prompt tokens, a fraction counts as a whole one


async def test_one_try_is_settled_at_its_own_price(tmp_path: Path) -> None:
    limiter = Watched()
    inside = inside_with(tmp_path, limiter)
    asks(inside, Answers())
    await inside.exchange([*asked(), *answered(whole(WORDS, SURE, (11, 5)))])
    assert not limiter.drawn
    (settled,) = limiter.settled
    assert limiter.of(settled, Measure.MONEY) == {SMALL_NANO}
    assert limiter.of(settled, Measure.TOKENS) == {16}


async def test_without_room_for_a_second_try_the_first_has_to_do(tmp_path: Path) -> None:
    limiter, calls = Watched(full=True), Answers()
    inside = inside_with(tmp_path, limiter)
    asks(inside, calls)
    (_, reply) = await inside.exchange([*asked(), *answered(UNSURE_ANSWER)])
    assert isinstance(reply, HeadersReply)
    assert dict(reply.set_headers)["x-extproc-cascade"] == "kept"
    assert b"first and more words" in (reply.body or b"")
    (event,) = inside.usage.events
    assert (event["cascade"], event["cascade_reason"], event["price_nano"]) == ("frugal/kept", "limit", SMALL_NANO)
    assert not calls.bodies


@pytest.mark.parametrize(
    ("said", "shows"),
    [(answered(UNSURE_ANSWER), LargeFails.ERROR), (answered(b"{}", status=503), LargeFails.ANSWER)],
    ids=["not to be shown", "there is none"],
)
async def test_without_room_and_without_an_answer(tmp_path: Path, said: Any, shows: LargeFails) -> None:
    limiter, calls = Watched(full=True), Answers()
    inside = inside_with(tmp_path, limiter, on_large_failure=shows)
    asks(inside, calls)
    (_, reply) = await inside.exchange([*asked(), *said])
    assert isinstance(reply, ImmediateReply)
    assert (reply.status, dict(reply.headers)["retry-after"]) == (429, "1")
    (event,) = inside.usage.events
    assert (event["termination"], event["price_nano"]) == ("REJECTED", 0)
    assert limiter.of(limiter.settled[0], Measure.MONEY) == {0}
    assert not calls.bodies


async def test_a_client_that_leaves_while_it_is_judged_pays_for_what_came(tmp_path: Path) -> None:
    limiter = Watched()
    inside = inside_with(tmp_path, limiter)
    begun = answered(piece("first ", SURE), piece("word", SURE), kind="text/event-stream", last=False)
    (forwarded,) = await inside.exchange([*asked(streams=True), *begun])
    assert isinstance(forwarded, HeadersReply)
    (event,) = inside.usage.events
    assert (event["termination"], event["cascade"]) == ("CANCELLED", "frugal/left")
    assert event["completion_tokens"] == 2
    paid = cost_nano(SMALL_PRICE.exact, event["prompt_tokens"], 0, 2)
    assert (event["price_nano"], limiter.of(limiter.settled[0], Measure.MONEY)) == (paid, {paid})


def test_a_size_adds_up() -> None:
    size = Size(7, 3, 0, LARGE_PRICE.exact, Size(11, 5, 0, SMALL_PRICE.exact))
    assert [size.of(measure) for measure in (Measure.TOKENS, Measure.INPUT_TOKENS, Measure.OUTPUT_TOKENS)] == [
        26,
        18,
        8,
    ]
    assert [size.of(measure) for measure in (Measure.REQUESTS, Measure.CONCURRENT)] == [1, 1]
    assert size.of(Measure.MONEY) == SMALL_NANO + LARGE_NANO
