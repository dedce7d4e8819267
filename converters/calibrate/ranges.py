"""From a tensor's histogram to the range that 8 bits shall span, and whether 8 bits can carry the tensor at all.

Pure functions. A range contains 0, because padding and ReLU need it exact. Values that repeat (atoms) are judged as
points: zero costs nothing wherever the range lies, so that a sparse tensor is not clipped for the sake of its zeros.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from converters.calibrate.entropy import least_divergence
from converters.calibrate.error import Loss
from converters.calibrate.histogram import F64, Histogram

Method = Literal["minmax", "percentile", "entropy", "mse"]
TAIL = 1e-4
"""The share of values that `percentile` leaves out at each end: the 99.99th percentile."""
TINY = 2.0**-100
"""A range below this is taken as zero: its step would fall out of float32's normal numbers."""
ATOM_SHARE = 0.01
CONTINUOUS_SHARE = 0.01
"""Where less lies outside the atoms, the tensor is a code of a few values, which its atoms decide."""
NEAR_STEPS = 4
"""Values that differ by fewer steps than this are as good as equal once they are integers."""
LOST_POWER = 0.25
"""The share of a tensor's mean square that quantisation may take."""
_END = 0.02
_COARSE = 64
_FINE = 25
_DEEPEST = 2.0**-12
"""How far `mse` shrinks an end at most: a range of 4096 times the bulk is past what int8 can carry anyway."""


class Range(NamedTuple):
    """What the integers of a quantised tensor span, in real units; low <= 0 <= high, equal only if both are 0."""

    low: float
    high: float

    def step(self, bits: int = 8) -> float:
        """The distance of neighbouring integers' values."""
        return (self.high - self.low) / ((1 << bits) - 1)


class Resolution(NamedTuple):
    """Whether integers can carry a tensor; `reason` says why not, in words, and is empty where they can."""

    reason: str

    @property
    def carried(self) -> bool:
        return not self.reason


def choose_range(histogram: Histogram, method: Method, *, bits: int = 8) -> Range:
    """Choose the range of a tensor's values.

    Args:
        histogram: what calibration saw.
        method: `minmax`: all values. `percentile`: all but TAIL of them at each end. `entropy`: the least
            Kullback-Leibler divergence between the values and their quantised form. `mse`: the least expected
            squared error of affine quantisation.
        bits: of the integers.

    Returns:
        A range with 0 in it; (0, 0) where no value is further from 0 than TINY, or none was seen.
    """
    if not histogram.count or max(abs(histogram.minimum), abs(histogram.maximum)) < TINY:
        return Range(0.0, 0.0)
    return _with_zero(*_METHODS[method](histogram, bits))


def _with_zero(low: float, high: float) -> Range:
    return Range(min(0.0, low), max(0.0, high))


def _minmax(histogram: Histogram, bits: int) -> tuple[float, float]:
    del bits
    return histogram.minimum, histogram.maximum


def _percentile(histogram: Histogram, bits: int) -> tuple[float, float]:
    """Both ends' percentiles; everything where they would leave nothing but zeros."""
    low, high = _with_zero(histogram.quantile(TAIL), histogram.quantile(1 - TAIL))
    return (low, high) if high - low >= TINY else _minmax(histogram, bits)


def _entropy(histogram: Histogram, bits: int) -> tuple[float, float]:
    full = _with_zero(histogram.minimum, histogram.maximum)
    return least_divergence(histogram.values(), full.low, full.high, levels=2**bits)


def _mse(histogram: Histogram, bits: int) -> tuple[float, float]:
    """Both ends at once: a coarse grid of shrunken ends, then a fine one around the best of it."""
    full = _with_zero(histogram.minimum, histogram.maximum)
    loss = Loss(histogram, levels=2**bits, share=ATOM_SHARE)
    factors = np.concatenate([np.geomspace(1.0, _DEEPEST, _COARSE), [0.0]])
    best = loss.best(-full.low * _of_side(factors, full.low), full.high * _of_side(factors, full.high))
    ratio = _DEEPEST ** (1 / (_COARSE - 1))
    near = np.geomspace(1 / ratio, ratio, _FINE)
    below = np.minimum(best[0] * _of_side(near, best[0]), -full.low)
    above = np.minimum(best[1] * _of_side(near, best[1]), full.high)
    low, high = loss.best(below, above)
    return -low, high


def _of_side(factors: F64, end: float) -> F64:
    """No search on a side that has no values."""
    return factors if end else np.ones(1)


_METHODS: dict[Method, Callable[[Histogram, int], tuple[float, float]]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}


def expected_error(histogram: Histogram, chosen: Range, *, bits: int = 8) -> float:
    """The mean squared error of quantising the tensor's values within a range, in squared real units."""
    if not histogram.count:
        return 0.0
    if chosen.low == chosen.high:
        value, _, _, counts = histogram.values()
        return float(np.average(value**2, weights=counts))
    loss = Loss(histogram, levels=2**bits, share=ATOM_SHARE)
    return float(loss(np.array([-chosen.low]), np.array([chosen.high]))[0, 0]) / histogram.count


def resolution(histogram: Histogram, chosen: Range, *, bits: int = 8) -> Resolution:
    """Judge whether integers within a range can carry a tensor.

    They cannot when more than half of the values that are no atoms lie within one step of zero or of an atom at an end
    (a mask of -1e9 added to scores, variances over many octaves, outliers 1000 times the bulk), when the values differ
    but by fewer than NEAR_STEPS steps, when clipping takes more than LOST_POWER, or when some were not finite.

    Tensors whose readers need absolute precision only, by their nature (a softmax's output with its fixed scale),
    are the caller's to exempt.
    """
    return Resolution(reason=_why_not(histogram, chosen, bits))


def _why_not(histogram: Histogram, chosen: Range, bits: int) -> str:
    step = chosen.step(bits)
    if histogram.not_finite:
        return f"{histogram.not_finite} of its values are NaN or infinite"
    spread = histogram.maximum - histogram.minimum if histogram.count else 0.0
    if spread < TINY or step == 0:
        return ""
    if spread < NEAR_STEPS * step:
        low, high = histogram.minimum, histogram.maximum
        return f"its values lie between {low:.6g} and {high:.6g}, which one int{bits} step of {step:.2g} hardly parts"
    lost, middle = _lost(histogram, step)
    if lost > 0.5:
        span = _in_words(chosen)
        return f"its range is {span} while half of its values lie {middle}: one int{bits} step is {step:.2g}"
    return _clipped(histogram, chosen, bits)


def _clipped(histogram: Histogram, chosen: Range, bits: int) -> str:
    value, _, _, counts = histogram.values()
    power = float(np.average(value**2, weights=counts))
    taken = expected_error(histogram, chosen, bits=bits) / power
    if taken <= LOST_POWER:
        return ""
    full = _in_words(_with_zero(histogram.minimum, histogram.maximum))
    return f"its values reach {full}; the range {_in_words(chosen)} would lose {taken:.0%} of their power"


def _lost(histogram: Histogram, step: float) -> tuple[float, str]:
    """The share of continuous values that a step swallows, and where their middle one lies."""
    value, _, _, counts = histogram.values()
    atom = histogram.is_atom(ATOM_SHARE)
    held = np.where(atom | (value == 0), 0, counts)
    total = int(held.sum())
    if total < CONTINUOUS_SHARE * histogram.count:
        return 0.0, ""
    # An atom within the range is one value among others (a background); one at its end may stand far off, as masks do.
    ends = (value <= histogram.minimum * (1 - _END)) | (value >= histogram.maximum * (1 - _END))
    points = np.concatenate([[0.0], value[atom & ends]])
    distances = np.abs(value[:, np.newaxis] - points)
    distance = distances.min(axis=1)
    lost = float(held[distance < step].sum()) / total
    order = np.argsort(distance, kind="stable")
    at = int(order[np.searchsorted(np.cumsum(held[order]), total / 2)])
    nearest = float(points[int(distances[at].argmin())])
    if nearest == 0.0:
        return lost, f"below {distance[at]:.2g}"
    return lost, f"within {distance[at]:.2g} of {nearest:.3g}"


def _in_words(chosen: Range) -> str:
    if math.isclose(-chosen.low, chosen.high, rel_tol=0.01):
        return f"±{chosen.high:.3g}"
    return f"{chosen.low:.3g} to {chosen.high:.3g}"
