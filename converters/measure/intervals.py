"""95 % intervals: of rates and of differences of paired rates by formula, of anything else by the bootstrap."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Z_95 = 1.959963984540054
"""The standard normal distribution's 97.5 % point."""
RESAMPLES = 1000
_BLOCK_VALUES = 256 * 1024

F64 = npt.NDArray[np.float64]
Counts = npt.NDArray[np.float64]
"""How often each sample was drawn: shape (resamples, samples)."""


class Interval(NamedTuple):
    """A value with its 95 % interval, low <= value <= high."""

    value: float
    low: float
    high: float


class Pairs(NamedTuple):
    """How often two models were right on the same samples.

    Attributes:
        both: both were right.
        first_only: the first alone was.
        second_only: the second alone was.
        neither: both were wrong.
    """

    both: int
    first_only: int
    second_only: int
    neither: int

    @property
    def total(self) -> int:
        return sum(self)


def count_pairs(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Pairs:
    """Count over two equally long arrays of right (True) and wrong (False)."""
    return Pairs(
        both=int(np.count_nonzero(first & second)),
        first_only=int(np.count_nonzero(first & ~second)),
        second_only=int(np.count_nonzero(~first & second)),
        neither=int(np.count_nonzero(~first & ~second)),
    )


def wilson(hits: int, total: int) -> Interval:
    """Wilson's score interval of a rate.

    Args:
        hits: 0..total.
        total: at least 1.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927) 209-212.
    """
    rate, z2 = hits / total, Z_95 * Z_95
    centre = (rate + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * math.sqrt(rate * (1 - rate) / total + z2 / (4 * total * total))
    # At the ends the bound is exact; rounding must not push it past the value.
    low = 0.0 if hits == 0 else max(0.0, min(rate, centre - half))
    high = 1.0 if hits == total else min(1.0, max(rate, centre + half))
    return Interval(rate, low, high)


def paired_difference(pairs: Pairs) -> Interval:
    """Interval of rate(first) - rate(second), both measured on the same samples.

    Newcombe's square-and-add method: the Wilson limits of each rate, joined under the correlation of the pairs.

    Source: Newcombe, Improved confidence intervals for the difference between binomial proportions based on paired
    data, Statistics in Medicine 17 (1998) 2635-2650, method 10.
    """
    total = pairs.total
    one = wilson(pairs.both + pairs.first_only, total)
    two = wilson(pairs.both + pairs.second_only, total)
    difference = (pairs.first_only - pairs.second_only) / total
    phi = _correlation(pairs)
    below = _joined(one.value - one.low, two.high - two.value, phi)
    above = _joined(one.high - one.value, two.value - two.low, phi)
    return Interval(difference, max(-1.0, difference - below), min(1.0, difference + above))


def _joined(first: float, second: float, phi: float) -> float:
    # With phi = 1 and equal distances rounding can leave a tiny negative number under the root.
    return math.sqrt(max(0.0, first * first - 2 * phi * first * second + second * second))


def _correlation(pairs: Pairs) -> float:
    """The phi coefficient, with Newcombe's continuity correction towards 0 where it is positive."""
    a, b, c, d = pairs
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    product = float(a * d - b * c)
    corrected = max(0.0, product - pairs.total / 2) if product > 0 else product
    return corrected / math.sqrt(margins)


def bootstrap(
    statistic: Callable[[Counts], F64], samples: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of a statistic of n samples, from resamples drawn with replacement.

    The percentile interval from 1000 resamples on; with fewer the standard interval, value +- 1.96 standard errors,
    for which 50 to 200 suffice. Both are too narrow for a handful of samples.

    Args:
        statistic: from how often each sample counts, shape (B, n), to the statistic of each row, shape (B,). Paired
            statistics take both models' answers to the samples that were drawn. NaN marks a draw that says nothing.
        samples: n, at least 2.
        resamples: how many are drawn.
        seed: of the draws.

    Source: Efron & Tibshirani, An introduction to the bootstrap (1993), chapters 6 and 13.
    """
    value = float(statistic(np.ones((1, samples)))[0])
    rng = np.random.default_rng(seed)
    block = max(1, min(resamples, _BLOCK_VALUES // samples))
    drawn = np.concatenate(
        [statistic(_draw(rng, min(block, resamples - start), samples)) for start in range(0, resamples, block)]
    )
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(value, value, value)
    if resamples >= RESAMPLES:
        low, high = (float(end) for end in np.quantile(drawn, (0.025, 0.975)))
    else:
        half = Z_95 * float(np.std(drawn, ddof=1)) if len(drawn) > 1 else 0.0
        low, high = value - half, value + half
    return Interval(value, min(low, value), max(high, value))


def at_least_rule_of_three(interval: Interval, samples: int) -> Interval:
    """Widen an interval of a fraction, or of a difference of fractions, that the bootstrap left without any width.

    No draw differs where no sample does; but what 3 of n samples in truth do, n samples show none of in 5 % of cases.

    Source: Hanley & Lippman-Hand, If nothing goes wrong, is everything all right?, JAMA 249 (1983) 1743-1745.
    """
    if interval.low != interval.high:
        return interval
    half = min(1.0, 3.0 / samples)
    return Interval(interval.value, interval.value - half, interval.value + half)


def _draw(rng: np.random.Generator, resamples: int, samples: int) -> Counts:
    """Counts of `samples` draws among as many samples, one row a resample."""
    chosen = rng.integers(0, samples, (resamples, samples)) + samples * np.arange(resamples)[:, np.newaxis]
    counts = np.bincount(chosen.ravel(), minlength=resamples * samples)
    return counts.reshape(resamples, samples).astype(np.float64)
