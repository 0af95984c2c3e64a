"""The tests are wrong no more often than they say, although somebody looks after every request; and they find what is
there. Simulated with a fixed seed; bounds are five standard deviations of the simulation away."""

from __future__ import annotations

import math

import numpy as np
import pytest

from extproc.experiments import sequential as seq
from extproc.experiments.sequential import Counts

ALPHA = 0.05
RUNS = 300
BOUND = ALPHA + 5 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)


def ever_different(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the rates are ever called different; looked at after every pair."""
    hits_a, hits_b = np.cumsum(a), np.cumsum(b)
    return any(
        seq.p_value(seq.evidence_of_difference(Counts(int(x), n), Counts(int(y), n), 0.0)) <= ALPHA
        for n, (x, y) in enumerate(zip(hits_a, hits_b, strict=True), 1)
    )


@pytest.mark.parametrize("rate", [0.02, 0.5])
def test_equal_rates_are_seldom_ever_called_different(rate: float) -> None:
    random = np.random.default_rng(7)
    wrong = sum(ever_different(random.random(150) < rate, random.random(150) < rate) for _ in range(RUNS))
    assert wrong / RUNS <= BOUND


def test_a_fixed_test_looked_at_as_often_is_wrong_far_more_often() -> None:
    """So the simulation would find a test that peeking breaks."""
    random = np.random.default_rng(7)
    n = np.arange(1, 501)
    wrong = 0
    for _ in range(RUNS):
        a, b = np.cumsum(random.random(500) < 0.5) / n, np.cumsum(random.random(500) < 0.5) / n
        pooled = (a + b) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.abs(a - b) / np.sqrt(2 * pooled * (1 - pooled) / n)
        wrong += bool((z[20:] > 1.96).any())
    assert wrong / RUNS > 3 * ALPHA


def test_different_rates_are_found() -> None:
    random = np.random.default_rng(7)
    found = sum(ever_different(random.random(600) < 0.05, random.random(600) < 0.25) for _ in range(20))
    assert found >= 19


def test_a_guardrail_that_is_not_broken_seldom_ever_speaks() -> None:
    random = np.random.default_rng(7)
    limit = -math.log(ALPHA)
    wrong = 0
    for _ in range(RUNS):
        hits = np.cumsum(random.random(1000) < 0.05)
        wrong += any(seq.evidence_above(Counts(int(hits[n]), n + 1), 0.05) >= limit for n in range(100, 1000))
    assert wrong / RUNS <= BOUND


def test_worse_by_less_than_the_margin_is_seldom_called_worse() -> None:
    random = np.random.default_rng(7)
    limit = -math.log(ALPHA)
    wrong = 0
    for _ in range(RUNS):
        a, b = np.cumsum(random.random(300) < 0.1), np.cumsum(random.random(300) < 0.15)
        wrong += any(
            seq.evidence_worse(Counts(int(a[n]), n + 1), Counts(int(b[n]), n + 1), 0.05) >= limit
            for n in range(50, 300, 2)
        )
    assert wrong / RUNS <= BOUND


def test_intervals_of_means_hold_all_the_time() -> None:
    """Asymptotic: looked at from the hundredth number on, of a skewed distribution."""
    random = np.random.default_rng(7)
    wrong = 0
    for _ in range(RUNS):
        values = random.lognormal(0.0, 0.5, 1000)
        truth = math.exp(0.125)
        wrong += any(
            not low <= truth <= high
            for low, high in (
                (interval.low, interval.high)
                for interval in (
                    seq.mean_interval(seq.Moments(n, values[:n].mean(), values[:n].var(ddof=1)), ALPHA)
                    for n in range(100, 1000, 10)
                )
            )
        )
    assert wrong / RUNS <= BOUND


def test_intervals_of_quantiles_hold_all_the_time() -> None:
    random = np.random.default_rng(7)
    wrong = 0
    for _ in range(RUNS):
        values = random.exponential(1.0, 600)
        truth = -math.log(0.05)
        wrong += any(
            not interval.low <= truth <= interval.high
            for interval in (
                seq.quantile_interval(sorted(values[:n].tolist()), 0.95, ALPHA) for n in range(20, 600, 20)
            )
        )
    assert wrong / RUNS <= BOUND


def test_requests_of_one_user_are_no_independent_observations() -> None:
    """Why reports take a subject's first request: users who differ make equal arms look different."""
    random = np.random.default_rng(7)
    by_request = by_subject = 0
    for _ in range(100):
        arms = [random.beta(0.3, 0.3, 15) for _ in range(2)]
        answers = [random.random((15, 40)) < rates[:, None] for rates in arms]
        by_request += ever_different(answers[0].ravel(), answers[1].ravel())
        by_subject += ever_different(answers[0][:, 0], answers[1][:, 0])
    assert by_subject / 100 <= ALPHA + 5 * math.sqrt(ALPHA * (1 - ALPHA) / 100)
    assert by_request / 100 > 0.5


def test_ends_of_the_scale() -> None:
    assert seq.rate_interval(Counts(0, 0), ALPHA) == seq.Interval(0.0, 1.0)
    none, all_ = seq.rate_interval(Counts(0, 50), ALPHA), seq.rate_interval(Counts(50, 50), ALPHA)
    assert none.low == 0.0
    assert 0.0 < none.high < 0.3
    assert (all_.low, all_.high) == pytest.approx((1 - none.high, 1.0))
    assert seq.difference_interval(Counts(0, 0), Counts(0, 0), ALPHA) == seq.Interval(-1.0, 1.0)
    apart = seq.difference_interval(Counts(0, 200), Counts(200, 200), ALPHA)
    assert apart.low > 0.8
    assert apart.high == pytest.approx(1.0)
    assert seq.p_value(-5.0) == 1.0


def test_the_interval_of_a_difference_is_what_the_evidence_does_not_contradict() -> None:
    a, b = Counts(30, 300), Counts(60, 250)
    interval = seq.difference_interval(a, b, ALPHA)
    limit = -math.log(ALPHA)
    for delta in np.linspace(-0.5, 0.5, 101):
        inside = interval.low <= delta <= interval.high
        assert (seq.evidence_of_difference(a, b, float(delta)) <= limit) == inside


def test_quantiles_that_differ_are_found_and_equal_ones_are_not() -> None:
    random = np.random.default_rng(7)
    fast, same, slow = (sorted((random.exponential(scale, 800)).tolist()) for scale in (1.0, 1.0, 2.0))
    assert seq.p_value(seq.evidence_of_quantiles(fast, slow, 0.95)) < 0.01
    assert seq.p_value(seq.evidence_of_quantiles(fast, same, 0.95)) > ALPHA
