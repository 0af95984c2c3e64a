"""Tests and intervals that hold at every moment at once: whoever looks after each request is wrong no more often than
`alpha`, over the whole life of an experiment.

All rest on one thing, Ville's inequality: a nonnegative martingale that begins at 1 ever reaches 1/alpha with a
probability of at most alpha. The martingale of a parameter is the likelihood ratio of a mixture against it (Robbins
1970; the mixture sequential probability ratio test). What the martingale of no value contradicts is the confidence
sequence; a null hypothesis of many values is rejected when every one of them is contradicted.

- A rate: Bernoulli, mixed over Jeffreys' Beta(1/2, 1/2). Exact for any number of observations.
- A quantile: the observations up to it are Bernoulli with its level (Howard and Ramdas 2022). Exact where the
  distribution is continuous.
- A mean: the Gaussian mixture, with the variance estimated (Waudby-Smith et al. 2021): asymptotic, for a finite
  variance. Not to be believed for a few dozen observations of something with a heavy tail.
- Two arms: the product of their martingales, least over all values that fit the hypothesis.

Assumed: observations of one arm are independent and from one distribution, and arms are assigned without looking at
them. Must not know: what is observed.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence

from msgspec import Struct

_STEPS = 50
_PRIOR = 0.5
_LOG_PRIOR = math.lgamma(_PRIOR) + math.lgamma(_PRIOR) - math.lgamma(2 * _PRIOR)
_TUNED_FOR = 1000
_RHO_SQUARED = (-2 * math.log(0.05) + math.log(-2 * math.log(0.05)) + 1) / _TUNED_FOR
"""The Gaussian mixture's width: narrowest intervals around so many observations."""


class Interval(Struct, frozen=True):
    """Both ends belong to it; infinite where nothing is known."""

    low: float
    high: float


class Counts(Struct, frozen=True):
    """`hits` of `total` trials."""

    hits: int
    total: int

    @property
    def rate(self) -> float:
        return self.hits / self.total if self.total else 0.0


class Moments(Struct, frozen=True):
    """Of so many numbers; the variance is the sample's."""

    total: int
    mean: float
    variance: float


def moments(values: Sequence[float]) -> Moments:
    total = len(values)
    mean = math.fsum(values) / total if total else 0.0
    variance = math.fsum((value - mean) ** 2 for value in values) / (total - 1) if total > 1 else 0.0
    return Moments(total, mean, variance)


def p_value(log_evidence: float) -> float:
    """Valid at every moment at once."""
    return math.exp(-max(0.0, log_evidence))


# Rates.


def evidence(counts: Counts, rate: float) -> float:
    """The log of the martingale of `rate`."""
    misses = counts.total - counts.hits
    mixed = math.lgamma(counts.hits + _PRIOR) + math.lgamma(misses + _PRIOR) - math.lgamma(counts.total + 2 * _PRIOR)
    return mixed - _LOG_PRIOR - _times_log(counts.hits, rate) - _times_log(misses, 1 - rate)


def rate_interval(counts: Counts, alpha: float) -> Interval:
    """The rates that are not contradicted."""
    return _around(counts.rate, Interval(0.0, 1.0), lambda rate: evidence(counts, rate) < -math.log(alpha))


def evidence_of_difference(a: Counts, b: Counts, difference: float) -> float:
    """Against the rate of `b` being that of `a` plus `difference`."""
    low, high = max(0.0, -difference), min(1.0, 1.0 - difference)
    hits_a, hits_b, misses_a, misses_b = a.hits, b.hits, a.total - a.hits, b.total - b.hits

    def rises(rate: float) -> bool:
        """The sum is convex in the rate; this is the sign of its slope."""
        other = rate + difference
        falling = _ratio(hits_a, rate) + _ratio(hits_b, other)
        return _ratio(misses_a, 1 - rate) + _ratio(misses_b, 1 - other) > falling

    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) else (middle, high)
    rate = (low + high) / 2
    return evidence(a, rate) + evidence(b, min(1.0, max(0.0, rate + difference)))


def difference_interval(a: Counts, b: Counts, alpha: float) -> Interval:
    """Of the rate of `b` less that of `a`."""
    return _around(
        b.rate - a.rate, Interval(-1.0, 1.0), lambda delta: evidence_of_difference(a, b, delta) < -math.log(alpha)
    )


def evidence_above(counts: Counts, limit: float) -> float:
    """Against the rate being `limit` or less."""
    return evidence(counts, limit) if counts.rate > limit else 0.0


def evidence_worse(a: Counts, b: Counts, margin: float) -> float:
    """Against the rate of `b` being that of `a` plus `margin`, or less."""
    return evidence_of_difference(a, b, margin) if b.rate - a.rate > margin else 0.0


# Quantiles.


def quantile(ordered: Sequence[float], level: float) -> float:
    """The least value that so large a share of all does not exceed. `ordered` is not empty."""
    return ordered[min(len(ordered) - 1, math.ceil(level * len(ordered)) - 1)]


def quantile_interval(ordered: Sequence[float], level: float, alpha: float) -> Interval:
    """Of the distribution that sorted values come from."""
    total, limit = len(ordered), -math.log(alpha)
    near = round(level * total)

    def fits(rank: int) -> bool:
        return evidence(Counts(rank, total), level) < limit

    least = bisect.bisect_left(range(near + 1), True, key=fits)
    most = near + bisect.bisect_left(range(total - near + 1), True, key=lambda more: not fits(near + more)) - 1
    return Interval(ordered[least - 1] if least else -math.inf, ordered[most] if most < total else math.inf)


def evidence_of_quantiles(a: Sequence[float], b: Sequence[float], level: float) -> float:
    """Against both sorted samples having the same quantile. The one that fits best lies between theirs."""
    low, high = sorted((quantile(a, level), quantile(b, level)))
    between = sorted({low, high, *_part(a, low, high), *_part(b, low, high)})

    def against(value: float) -> float:
        return sum(evidence(Counts(bisect.bisect_right(one, value), len(one)), level) for one in (a, b))

    return min(map(against, between))


def _part(ordered: Sequence[float], low: float, high: float) -> Sequence[float]:
    return ordered[bisect.bisect_left(ordered, low) : bisect.bisect_right(ordered, high)]


# Means.


def mean_interval(of: Moments, alpha: float) -> Interval:
    """Infinite for fewer than two numbers."""
    if of.total < 2:
        return Interval(-math.inf, math.inf)
    width = math.sqrt((-math.log(alpha) + _gaussian_price(of)) / _gaussian_weight(of)) if of.variance else 0.0
    return Interval(of.mean - width, of.mean + width)


def evidence_of_means(a: Moments, b: Moments, difference: float = 0.0) -> float:
    """Against the mean of `b` being that of `a` plus `difference`."""
    weight = _joint_weight(a, b)
    if weight is None:
        return 0.0
    return weight * (b.mean - a.mean - difference) ** 2 - _gaussian_price(a) - _gaussian_price(b)


def mean_difference_interval(a: Moments, b: Moments, alpha: float) -> Interval:
    """Of the mean of `b` less that of `a`."""
    weight = _joint_weight(a, b)
    if weight is None:
        return Interval(-math.inf, math.inf)
    width = math.sqrt((-math.log(alpha) + _gaussian_price(a) + _gaussian_price(b)) / weight)
    return Interval(b.mean - a.mean - width, b.mean - a.mean + width)


def _gaussian_price(of: Moments) -> float:
    return 0.5 * math.log1p(of.total * _RHO_SQUARED)


def _gaussian_weight(of: Moments) -> float:
    """The martingale of a mean m is exp(weight * (mean - m)^2 - price)."""
    scaled = of.total * _RHO_SQUARED
    return of.total * scaled / (2 * of.variance * (1 + scaled))


def _joint_weight(a: Moments, b: Moments) -> float | None:
    """Of the difference, least over the mean of `a`; None while too little is known."""
    if min(a.total, b.total) < 2 or not (a.variance and b.variance):
        return None
    of_a, of_b = _gaussian_weight(a), _gaussian_weight(b)
    return of_a * of_b / (of_a + of_b)


# Searching.


def _around(centre: float, bounds: Interval, fits: Callable[[float], bool]) -> Interval:
    """The range around `centre` that fits; beyond either end of it nothing does."""
    ends = []
    for bound in (bounds.low, bounds.high):
        inside, outside = centre, bound
        if fits(bound):
            inside = bound
        else:
            for _ in range(_STEPS):
                middle = (inside + outside) / 2
                inside, outside = (middle, outside) if fits(middle) else (inside, middle)
        ends.append(inside)
    return Interval(*ends)


def _times_log(count: int, value: float) -> float:
    if count == 0:
        return 0.0
    return count * math.log(value) if value > 0 else -math.inf


def _ratio(count: int, value: float) -> float:
    if count == 0:
        return 0.0
    return count / value if value > 0 else math.inf
