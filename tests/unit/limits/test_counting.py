"""The reference of every kind of counter: published rows, boundaries, and what one request can never get twice."""

from __future__ import annotations

import json

import pytest

from extproc.limits import FOREVER_MS, Charge, Limit, Measure, Period, bucket, budget, gauge, sliding
from extproc.stores.counting import Counter, bring_forward, period_of, state, take, wait_ms
from extproc.stores.local_share import LocalCounts
from tests.helpers import data

TTL_MS = 30_000


def charge(limit: Limit, cost: int, key: str = "k", floor: int = 0) -> Charge:
    return Charge(key, limit, cost, floor)


def test_gcra_rows() -> None:
    given = json.loads(data.path("gcra_cases.json").read_text())
    limit = bucket("rows", Measure.REQUESTS, given["limit"], given["limit"] * 1000)
    counts = LocalCounts()
    for row in given["cases"]:
        admission = counts.reserve("", [charge(limit, row["cost"])], TTL_MS, round(row["t"] * 1000))
        (now,) = admission.states
        assert admission.admitted is not row["limited"], row
        assert now.remaining == row["remaining"], row
        assert now.reset_ms == round(row["reset_after"] * 1000), row
        retry_ms = admission.retry_ms if row["limited"] else -1
        assert retry_ms == (round(row["retry_after"] * 1000) if row["retry_after"] >= 0 else -1), row


@pytest.mark.parametrize(("amount", "window_s"), [(7, 60), (10_000, 60), (5_000_000, 86_400), (1_000_000_007, 86_400)])
def test_a_bucket_gives_exactly_its_amount_and_refills_in_its_window(amount: int, window_s: int) -> None:
    limit, counter = bucket("b", Measure.TOKENS, amount, window_s * 1000), Counter()
    bring_forward(limit, counter, 1_000_000)
    assert wait_ms(limit, counter, amount, 1_000_000) == 0
    take(limit, counter, amount)
    wait = wait_ms(limit, counter, 1, 1_000_000)
    assert 0 < wait <= max(limit.tick_ms, window_s * 1000 // amount + limit.tick_ms)
    bring_forward(limit, counter, 1_000_000 + wait)
    assert wait_ms(limit, counter, 1, 1_000_000 + wait) == 0
    assert abs(state(limit, counter, 0).reset_ms + wait - window_s * 1000) <= limit.tick_ms


def test_an_amount_that_can_not_be_counted_exactly_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly"):
        bucket("b", Measure.TOKENS, (1 << 50) + 1, 60_000)


def test_a_sliding_window_lets_no_burst_through_at_its_boundary() -> None:
    limit, counts = sliding("w", Measure.REQUESTS, 10, 60_000), LocalCounts()

    def admitted(now_ms: int, times: int = 20) -> int:
        return sum(counts.reserve("", [charge(limit, 1)], TTL_MS, now_ms).admitted for _ in range(times))

    assert admitted(59_999) == 10  # a fixed window would begin anew a millisecond later
    assert admitted(60_001) == 0
    assert admitted(119_998) == 0
    retry_ms = counts.reserve("", [charge(limit, 1)], TTL_MS, 119_998).retry_ms
    assert retry_ms <= 3_001 + 3_000  # the window's own precision is a twentieth of it
    assert admitted(119_998 + retry_ms) == 10


def test_in_no_window_is_more_than_the_amount_used() -> None:
    limit, counts, uses = sliding("w", Measure.TOKENS, 100, 10_000), LocalCounts(), []
    for step in range(600):
        now_ms, cost = step * 137, 1 + step % 9
        if counts.reserve("", [charge(limit, cost)], TTL_MS, now_ms).admitted:
            uses.append((now_ms, cost))
    for began_ms, _ in uses:
        assert sum(cost for at_ms, cost in uses if began_ms <= at_ms < began_ms + 10_000) <= 100


def test_periods_begin_at_midnight_utc() -> None:
    end_of_january = 1_769_903_999_000  # 2026-01-31T23:59:59Z
    for which in (Period.DAY, Period.MONTH):
        number, left_ms = period_of(which, end_of_january)
        assert left_ms == 1000
        assert period_of(which, end_of_january + 1000)[0] == number + 1
    assert period_of(Period.TOTAL, end_of_january) == (0, FOREVER_MS)
    leap_day = 1_835_308_800_000  # 2028-02-28
    assert period_of(Period.MONTH, leap_day)[1] == 2 * 86_400_000


def test_all_or_nothing_but_the_attempt() -> None:
    requests, tokens = bucket("r", Measure.REQUESTS, 5, 60_000), bucket("t", Measure.TOKENS, 100, 60_000)
    counts = LocalCounts()
    small, large = charge(tokens, 60, "t"), charge(requests, 1, "r")
    assert counts.reserve("a", [large, small], TTL_MS, 0).admitted
    refused = counts.reserve("b", [large, small], TTL_MS, 0)
    assert not refused.admitted
    assert counts.look("r", requests, 0).remaining == 3
    assert counts.look("t", tokens, 0).remaining == 40
    assert counts.reserve("b", [large, small], TTL_MS, refused.retry_ms).admitted


def test_a_shadow_never_refuses_and_is_told() -> None:
    limit, counts = bucket("s", Measure.TOKENS, 10, 60_000, shadow=True), LocalCounts()
    assert counts.reserve("a", [charge(limit, 8)], TTL_MS, 0).admitted
    second = counts.reserve("b", [charge(limit, 8)], TTL_MS, 0)
    assert second.admitted
    assert second.states[0].wait_ms > 0
    assert counts.settle("b", [8], 0)
    assert counts.look("k", limit, 0).remaining == 2


def test_a_reservation_is_settled_once_up_or_down() -> None:
    limit, counts = sliding("t", Measure.TOKENS, 100, 60_000), LocalCounts()
    counts.reserve("down", [charge(limit, 50)], TTL_MS, 0)
    assert counts.settle("down", [20], 10)
    assert not counts.settle("down", [0], 20)
    counts.reserve("up", [charge(limit, 10)], TTL_MS, 30)
    assert counts.extend("up", [30], 40)
    assert counts.settle("up", [95], 50)
    assert counts.look("k", limit, 60).remaining == 0
    assert counts.reserve("more", [charge(limit, 1)], TTL_MS, 60).retry_ms > 0


def test_what_is_leaked_is_returned_and_its_owner_may_still_come_back() -> None:
    slots, tokens, counts = gauge("c", 1), sliding("t", Measure.TOKENS, 100, 600_000), LocalCounts()
    charges = [charge(slots, 1, "c"), charge(tokens, 50, "t", floor=7)]
    assert counts.reserve("a", charges, TTL_MS, 0).admitted
    assert not counts.reserve("b", charges, TTL_MS, 1).admitted
    counts.renew(["a"], TTL_MS, 20_000)
    assert counts.reap(TTL_MS, 10) == 0
    assert counts.reap(20_000 + TTL_MS, 10) == 1
    assert counts.look("c", slots, 50_000).remaining == 1
    assert counts.look("t", tokens, 50_000).remaining == 93
    assert counts.settle("a", [0, 30], 50_001)
    assert not counts.settle("a", [0, 0], 50_002)
    assert counts.look("t", tokens, 50_003).remaining == 70


def test_a_budget_begins_anew_and_gives_nothing_back_to_a_new_period() -> None:
    day, counts = budget("d", 100, Period.DAY), LocalCounts()
    night_ms = 86_399_000
    assert counts.reserve("a", [charge(day, 90)], TTL_MS, night_ms).admitted
    refused = counts.reserve("b", [charge(day, 20)], TTL_MS, night_ms)
    assert (refused.admitted, refused.retry_ms) == (False, 1000)
    assert counts.reserve("b", [charge(day, 20)], TTL_MS, night_ms + 1000).admitted
    counts.settle("a", [10], night_ms + 2000)
    assert counts.look("k", day, night_ms + 2000).remaining == 80


def test_a_share_is_never_nothing_and_keeps_the_window() -> None:
    limit = bucket("t", Measure.TOKENS, 10_000, 60_000)
    share = limit.share(4)
    assert (share.amount, share.amount * share.b * share.tick_ms // share.a) == (2_500, 60_000)
    assert bucket("r", Measure.REQUESTS, 3, 60_000).share(8).amount == 1
    assert gauge("c", 9).share(2).amount == 4
