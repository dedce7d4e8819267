"""The expected squared error of affine quantisation, from a histogram, for many ranges at once.

With step s, values inside the range that spread over many steps are off by s^2/12 on average; those nearer to zero
than s/2 become zero and are off by themselves; those outside are clipped to the end. Prefix sums over the buckets
give each part for any range by two searches, so that a whole grid of ranges costs less than one pass over the data.
"""

from typing import NamedTuple

import numpy as np

from converters.calibrate.histogram import F64, I64, Bools, Histogram


class _Points(NamedTuple):
    """Atoms other than zero: edges of where each may lie, and its count."""

    low: F64
    high: F64
    counts: I64


class Loss:
    """The summed squared error of a histogram's values, as a function of a range's two ends."""

    def __init__(self, histogram: Histogram, *, levels: int, share: float) -> None:
        """Prepare the sums.

        Args:
            histogram: with at least one value.
            levels: how many integers there are.
            share: of all values that a bucket must exceed to be taken as one repeated value.
        """
        value, low, high, counts = histogram.values()
        atom = histogram.is_atom(share)
        rest = ~atom & (value != 0)
        positive, negative = rest & (value > 0), rest & (value < 0)
        self._above = _Side(low[positive], high[positive], counts[positive])
        self._below = _Side(-high[negative][::-1], -low[negative][::-1], counts[negative][::-1])
        self._atoms = _points(value, low, high, counts, atom & (value != 0))
        self._levels = levels

    def best(self, below: F64, above: F64) -> tuple[float, float]:
        """The pair of ends with the least loss, the widest of equals; see `__call__` for the arguments."""
        losses = self(below, above)
        row, column = np.unravel_index(int(np.argmin(losses)), losses.shape)
        return float(below[row]), float(above[column])

    def __call__(self, below: F64, above: F64) -> F64:
        """Losses of shape (len(below), len(above)).

        Args:
            below: distances of the low end from zero, each >= 0.
            above: those of the high end. Both zero gives an infinite loss.
        """
        a, b = below[:, np.newaxis], above[np.newaxis, :]
        step = (a + b) / (self._levels - 1)
        usable = step > 0
        step = np.where(usable, step, 1.0)
        # Zero falls on an integer, and the ends with it on multiples of the step.
        zero = np.round(a / step)
        a, b = zero * step, (self._levels - 1 - zero) * step
        loss = self._above.tail(b) + self._below.tail(a)
        for side, end in ((self._above, b), (self._below, a)):
            to_zero = np.minimum(step / 2, end)
            inside = side.mass(end) - side.mass(to_zero)
            loss = loss + side.inner(to_zero) + inside * step**2 / 12
        for low, high, count in zip(*self._atoms, strict=True):
            loss = loss + count * _atom_error(float(low), float(high), a, b, step)
        return np.where(usable, loss, np.inf)


def _points(value: F64, low: F64, high: F64, counts: I64, chosen: Bools) -> _Points:
    """An atom in an outermost bucket lies at the extreme itself; another one anywhere in its bucket."""
    low, high = low.copy(), high.copy()
    if value.size and value[-1] > 0:
        low[-1] = high[-1]
    if value.size and value[0] < 0:
        high[0] = low[0]
    return _Points(low[chosen], high[chosen], counts[chosen])


def _atom_error(low: float, high: float, a: F64, b: F64, step: F64) -> F64:
    """The squared error of one value that lies evenly between `low` and `high`."""
    centre = (low + high) / 2
    clipped = np.where(centre > b, centre - b, np.where(centre < -a, centre + a, 0.0)) ** 2
    if low == high:
        inside = (low - np.round(low / step) * step) ** 2
    else:
        inside = (_error_up_to(high, step) - _error_up_to(low, step)) / (high - low)
    return np.where((centre > b) | (centre < -a), clipped, inside)


def _error_up_to(x: float, step: F64) -> F64:
    """The integral from 0 to x of the squared distance to the nearest multiple of `step`."""
    whole = np.round(x / step)
    return whole * step**3 / 12 + (x - whole * step) ** 3 / 3


class _Side:
    """The values of one sign, as magnitudes in ascending buckets, each taken as evenly filled."""

    def __init__(self, low: F64, high: F64, counts: I64) -> None:
        self._low, self._high = low, high
        self._counts = counts.astype(np.float64)
        # A point is never cut in two, so any width does for it.
        self._width = np.where(high > low, high - low, 1.0)
        first = self._counts * (low + high) / 2
        second = self._counts * (low**2 + low * high + high**2) / 3
        self._mass = np.concatenate([[0.0], np.cumsum(self._counts)])
        self._square = np.concatenate([[0.0], np.cumsum(second)])
        # Summed from the far end: differences of prefix sums would drown a thin tail.
        self._beyond = [
            np.concatenate([np.cumsum(moment[::-1])[::-1], [0.0]]) for moment in (self._counts, first, second)
        ]

    def mass(self, x: F64) -> F64:
        """How many magnitudes lie below x."""
        at, part = self._find(x)
        return np.where(part, self._mass[at] + self._density(at) * (x - self._at(self._low, at)), self._mass[at])

    def inner(self, x: F64) -> F64:
        """The sum of squares of the magnitudes below x."""
        at, part = self._find(x)
        partial = self._density(at) * (x**3 - self._at(self._low, at) ** 3) / 3
        return np.where(part, self._square[at] + partial, self._square[at])

    def tail(self, x: F64) -> F64:
        """The sum of (m - x)^2 over the magnitudes m above x."""
        at, part = self._find(x)
        zeroth, first, second = (np.asarray(sums[at + part], np.float64) for sums in self._beyond)
        partial = self._density(at) * (self._at(self._high, at) - x) ** 3 / 3
        full = np.maximum(second - 2 * x * first + x**2 * zeroth, 0.0)
        return np.asarray(full + np.where(part, partial, 0.0))

    def _find(self, x: F64) -> tuple[I64, Bools]:
        """The first bucket that does not end below x, and whether x cuts it."""
        at = np.asarray(np.searchsorted(self._high, x), np.int64)
        return at, np.asarray((at < len(self._high)) & (self._at(self._low, at) < x))

    def _density(self, at: I64) -> F64:
        return self._at(self._counts, at) / self._at(self._width, at)

    def _at(self, values: F64, at: I64) -> F64:
        if not values.size:
            return np.ones(at.shape)
        return np.asarray(values[np.minimum(at, len(values) - 1)], np.float64)
