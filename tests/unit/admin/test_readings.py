"""Rates, shares and quantiles of the live view, from metrics as the service counts them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from extproc.admin.live import wilson
from extproc.admin.readings import added, quantile, read

BOUNDS = (0.1, 0.2, 0.4, math.inf)
buckets = st.lists(st.integers(0, 50), min_size=len(BOUNDS), max_size=len(BOUNDS)).map(
    lambda counts: list(zip(BOUNDS, map(float, counts), strict=True))
)


def test_a_reading_adds_up_what_it_does_not_tell_apart() -> None:
    registry = CollectorRegistry()
    exchanges = Counter("extproc_exchanges_total", "x", ("model", "termination"), registry=registry)
    exchanges.labels("a", "completed").inc(2)
    exchanges.labels("b", "completed").inc(3)
    exchanges.labels("b", "rejected").inc()
    first_token = Histogram(
        "gen_ai_server_time_to_first_token_seconds", "x", ("model",), buckets=(0.1, 0.2), registry=registry
    )
    first_token.labels("a").observe(0.05)
    first_token.labels("b").observe(0.15)
    reading = read(registry.collect(), 1.0)
    assert reading.count("exchanges") == {("completed",): 5, ("rejected",): 1}
    assert reading.histogram("first_token_s") == {0.1: 1, 0.2: 2, math.inf: 2}
    assert reading.count("arms") == {}


def test_the_window_is_what_came_in_between() -> None:
    assert added({0.1: 5, 0.2: 9, math.inf: 9}, {0.1: 4, 0.2: 4, math.inf: 4}) == [(0.1, 1), (0.2, 4), (math.inf, 0)]


@given(buckets, st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_that_holds_it(found: list[tuple[float, float]], share: float) -> None:
    value = quantile(found, share)
    total = sum(count for _, count in found)
    if value is None:
        assert total == 0
        return
    upto = sum(count for bound, count in found if bound <= value)
    beyond = sum(count for (lower, _), (_, count) in zip([(0.0, 0.0), *found], found, strict=False) if lower >= value)
    assert upto <= share * total + 1e-9 or math.isclose(upto, share * total, rel_tol=1e-6)
    assert beyond <= (1 - share) * total + 1e-6 or value == max(b for b in BOUNDS if b != math.inf)


@given(buckets)
def test_quantiles_are_in_order(found: list[tuple[float, float]]) -> None:
    values = [quantile(found, share) for share in (0.5, 0.95, 0.99)]
    known = [value for value in values if value is not None]
    assert known == sorted(known)


@pytest.mark.parametrize(("successes", "trials", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775)])
def test_wilsons_interval(successes: int, trials: int, low: float, high: float) -> None:
    """Values of Newcombe 1998 (Statistics in Medicine 17), recomputed to four places."""
    assert wilson(successes, trials) == (low, high)


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_an_interval_holds_its_share(successes: int, trials: int) -> None:
    successes = min(successes, trials)
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials + 1e-4
    assert successes / trials - 1e-4 <= high <= 1
