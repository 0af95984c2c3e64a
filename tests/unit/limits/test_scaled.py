"""Limits under pressure: never more than without it, true waits, the lowest tier first, and one count for all views."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.clock import Clock
from extproc.limits import Charge, Limit, Lost, Measure, Period, bucket, budget, gauge, sliding
from extproc.policies.limit_adaptive import TIERS, Adaptive
from extproc.policies.limit_rules import Rules, Size, fitting_output
from extproc.policies.limit_settings import Settings
from extproc.principal import Principal
from extproc.stores.local_share import LocalCounts, LocalLimiter

LIMITS = (
    bucket("bucket", Measure.TOKENS, 1_000, 60_000),
    bucket("few", Measure.TOKENS, 7, 13_000),
    sliding("window", Measure.TOKENS, 1_000, 60_000),
)
NOW_MS = 1_767_225_000_000
percents = st.sampled_from((100, 73, 50, 10, 1))
limits = st.sampled_from(LIMITS)


def charge(limit: Limit, cost: int, percent: int = 100, *, slower: bool = True) -> Charge:
    return Charge("k", limit.scaled(percent, slower=slower), cost)


def reserve(counts: LocalCounts, one: Charge, now_ms: int) -> tuple[bool, int]:
    admission = counts.reserve("", [one], 0, now_ms)
    return admission.admitted, admission.retry_ms


class TestCounting:
    def test_amount_and_rate_go_down_together(self) -> None:
        counts, half = LocalCounts(), charge(LIMITS[0], 100, 50)
        assert sum(reserve(counts, half, NOW_MS)[0] for _ in range(10)) == 5
        assert reserve(counts, half, NOW_MS) == (False, 12_000)  # 100 of 500 a minute
        assert sum(reserve(counts, half, NOW_MS + 60_000)[0] for _ in range(10)) == 5

    def test_a_shared_bucket_refills_as_ever_and_is_filled_only_so_far(self) -> None:
        counts = LocalCounts()
        low, high = charge(LIMITS[0], 100, 50, slower=False), charge(LIMITS[0], 100)
        assert [reserve(counts, low, NOW_MS)[0] for _ in range(6)] == [True] * 5 + [False]
        assert [reserve(counts, high, NOW_MS)[0] for _ in range(6)] == [True] * 5 + [False]
        assert reserve(counts, high, NOW_MS) == (False, 6_000)
        assert reserve(counts, low, NOW_MS) == (False, 36_000)

    def test_what_fits_the_whole_limit_alone_waits_until_it_is_empty(self) -> None:
        counts = LocalCounts()
        assert reserve(counts, charge(LIMITS[0], 50, 10), NOW_MS) == (True, 0)
        large = charge(LIMITS[0], 900, 10)
        assert reserve(counts, large, NOW_MS) == (False, 30_000)  # 50 at 100 a minute
        assert reserve(counts, large, NOW_MS + 29_999)[0] is False
        assert reserve(counts, large, NOW_MS + 30_000) == (True, 0)
        assert reserve(counts, charge(LIMITS[0], 1_001, 10), NOW_MS) == (False, -1)

    def test_what_is_admitted_draws_up_to_the_whole_limit(self) -> None:
        counts = LocalCounts()
        assert counts.reserve("a", [charge(LIMITS[0], 80, 10)], 1000, NOW_MS).admitted
        assert counts.extend("a", [900], NOW_MS)
        assert counts.extend("a", [900], NOW_MS) is False

    @pytest.mark.parametrize(
        "limit",
        [bucket("day", Measure.TOKENS, 100, 86_400_000), sliding("day", Measure.TOKENS, 100, 86_400_000),
         budget("b", 100, Period.DAY)],
    )  # fmt: skip
    def test_quotas_and_budgets_stay(self, limit: Limit) -> None:
        assert limit.scaled(1, slower=True) is limit

    def test_slots(self) -> None:
        slots = gauge("slots", 3)
        assert (slots.scaled(50, slower=False).amount, slots.scaled(1, slower=False).amount) == (1, 1)

    @given(limits, st.lists(st.tuples(st.integers(0, 1000), percents, st.integers(0, 30_000)), max_size=30))
    def test_whatever_the_views_never_more_than_the_whole(
        self, limit: Limit, asked: list[tuple[int, int, int]]
    ) -> None:
        """Replicas that see different levels, on one counter: what is admitted fits the unscaled limit alone too."""
        counts, alone, now_ms = LocalCounts(), LocalCounts(), NOW_MS
        for cost, percent, later_ms in asked:
            now_ms += later_ms
            cost = min(cost, limit.amount)
            if reserve(counts, charge(limit, cost, percent), now_ms)[0]:
                assert reserve(alone, charge(limit, cost), now_ms)[0]

    @given(limits, st.lists(st.tuples(st.integers(0, 1000), percents), max_size=20), st.integers(1, 1000), percents)
    def test_the_wait_is_true(self, limit: Limit, before: list[tuple[int, int]], cost: int, percent: int) -> None:
        counts, cost = LocalCounts(), min(cost, limit.amount)
        for taken, view in before:
            reserve(counts, charge(limit, min(taken, limit.amount), view), NOW_MS)
        admitted, retry_ms = reserve(counts, charge(limit, cost, percent), NOW_MS)
        if not admitted:
            assert retry_ms > 0
            assert reserve(counts, charge(limit, cost, percent), NOW_MS + retry_ms)[0]

    async def test_a_share_of_what_is_left(self) -> None:
        local = LocalLimiter(Clock(wall=lambda: NOW_MS / 1000))
        local.replicas = 4
        one = charge(LIMITS[0], 10, 40)
        admitted = [(await local.attempt([one], Lost.SHARE)).admitted for _ in range(12)]
        assert admitted == [True] * 10 + [False] * 2
        large = charge(LIMITS[0], 900, 40)
        assert (await local.attempt([large], Lost.SHARE)).retry_ms == 60_000

    async def test_a_share_counts_alike_whatever_the_level(self) -> None:
        local = LocalLimiter(Clock(wall=lambda: NOW_MS / 1000), replicas=4)
        low, high = charge(LIMITS[0], 10, 40, slower=False), charge(LIMITS[0], 10)
        assert [(await local.attempt([low], Lost.SHARE)).admitted for _ in range(11)] == [True] * 10 + [False]
        assert [(await local.attempt([high], Lost.SHARE)).admitted for _ in range(16)] == [True] * 15 + [False]


class TestRules:
    def test_rates_and_slots_of_a_key_are_scaled_and_quotas_are_not(self) -> None:
        settings = Settings(keys={"key-1": {"concurrent_requests": 8}})  # type: ignore[dict-item]
        principal = Principal("key-1", "blue", "free", frozenset({"*"}))
        applied = Rules(settings).applied(principal, "m", 50)
        assert [(one.limit.amount, one.limit.most) for one in applied] == [
            (5, 10), (5_000, 10_000), (100_000, 100_000), (4, 8)
        ]  # fmt: skip
        assert [one.key for one in applied] == [one.key for one in Rules(settings).applied(principal, "m")]

    def test_what_fits_only_the_whole_limit_is_not_impossible(self) -> None:
        applied = Rules(Settings()).applied(Principal("k", "t", "free", frozenset()), "m", 10)
        assert fitting_output(applied, Size(3_000, 500), 1) == 1
        assert fitting_output(applied, Size(200, 5_000), 1) == 400
        impossible = fitting_output(applied, Size(10_000, 500), 1)
        assert isinstance(impossible, Limit)
        assert impossible.most == 10_000


class TestSettings:
    def test_each_level_leaves_less_and_the_lower_tier_less_than_the_higher(self) -> None:
        adaptive = Adaptive()
        table = [[adaptive.percent(level, tier) for tier in TIERS] for level in range(5)]
        assert table[0] == [100] * 4
        assert all(row == sorted(row) for row in table)
        assert all(list(column) == sorted(column, reverse=True) for column in zip(*table, strict=True))
        assert all(row[-1] == 100 for row in table)
        assert adaptive.percent(1, "unheard-of") == adaptive.percent(1, "free")

    @pytest.mark.parametrize(
        ("levels", "problem"),
        [
            ([{"enter": 0.5, "leave": 0.5, "shares": {}}], "left at a lower"),
            ([{"enter": 0.5, "leave": 0.4, "shares": {"pro": 0.5}}], "a lower tier"),
            ([{"enter": 0.5, "leave": 0.4, "shares": {}}, {"enter": 0.5, "leave": 0.4, "shares": {}}], "each level"),
            (
                [{"enter": 0.5, "leave": 0.4, "shares": {"free": 0.1}},
                 {"enter": 0.6, "leave": 0.4, "shares": {"free": 0.2}}],
                "no tier",
            ),
        ],
    )  # fmt: skip
    def test_disorder_is_refused(self, levels: Any, problem: str) -> None:
        with pytest.raises(pydantic.ValidationError, match=problem):
            Adaptive(levels=tuple(levels))
