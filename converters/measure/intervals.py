"""95 % intervals for rates, and for the difference of two rates that were measured on the same samples."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Z_95 = 1.959963984540054
"""The standard normal distribution's 97.5 % point."""


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
