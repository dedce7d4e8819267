"""The range whose quantised values tell most of the original ones: TensorRT's calibration, for affine integers.

Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017: among clipped ranges of a finely binned histogram take
the one whose distribution P, its outliers put into the outermost bins, diverges least (Kullback-Leibler) from Q, the
same bins merged into as many groups as there are integers and spread out again over the occupied ones.

Adapted: there the bins hold magnitudes and one threshold is sought; here it is sought likewise, then each end is
moved alone. Zeros are left out, because every range holds them exactly. Where the narrowest range wins, its bins are
cut anew and the search goes on: a fixed grid cannot see a bulk that fits into a few of its bins.
"""

from typing import NamedTuple

import numpy as np

from converters.calibrate.histogram import F64, Buckets

BINS = 2048
_CANDIDATES = 48
_ZOOMS = 6


def least_divergence(buckets: Buckets, low: float, high: float, *, levels: int) -> tuple[float, float]:
    """The ends of the best range within low <= 0 <= high, of which one is not 0."""
    widest = low, high
    for _ in range(_ZOOMS):
        bins = _bin(buckets, low, high)
        start, stop = _together(bins, levels)
        if stop - start > 2 * levels:
            break
        low, high = bins.real(start), bins.real(stop)
    start, stop = _each_alone(bins, start, stop, levels)
    # Whole bins can end a little beyond the values.
    return max(widest[0], bins.real(start)), min(widest[1], bins.real(stop))


class _Bins(NamedTuple):
    """Even bins with an edge at zero. counts: of shape (n,). zero: how many lie below zero. width: in real units."""

    counts: F64
    zero: int
    width: float
    below: float
    above: float

    def real(self, edge: int) -> float:
        return (edge - self.zero) * self.width


def _bin(buckets: Buckets, low: float, high: float) -> _Bins:
    """Cut a range into about BINS bins; `below` and `above` count what lies outside."""
    width = (high - low) / BINS
    zero, rest = round(-low / width), round(high / width)
    edges = np.arange(-zero, rest + 1) * width
    kept = buckets.value != 0
    held = np.where(kept, buckets.counts, 0).astype(np.float64)
    after = np.cumsum(held)
    upto = np.interp(
        edges, np.stack([buckets.low, buckets.high], 1).ravel(), np.stack([after - held, after], 1).ravel()
    )
    counts = np.diff(upto)
    return _Bins(counts, zero, width, float(upto[0]), float(after[-1] - upto[-1]))


def _together(bins: _Bins, levels: int) -> tuple[int, int]:
    """Both ends at one threshold, or where the values end before it; the widest of equals."""
    count = len(bins.counts)
    thresholds = _steps(max(bins.zero, count - bins.zero), levels)
    pairs = [(max(0, bins.zero - size), min(count, bins.zero + size)) for size in thresholds]
    return min(pairs, key=lambda ends: _cost(bins, ends[0], ends[1], levels))


def _each_alone(bins: _Bins, start: int, stop: int, levels: int) -> tuple[int, int]:
    """Move one end, then the other, to where the divergence is least; an end without values stays at zero."""
    if stop > bins.zero:
        ends = _steps(len(bins.counts), max(bins.zero + 1, start + levels))
        stop = min([*ends, stop], key=lambda end: _cost(bins, start, end, levels))
    if start < bins.zero:
        ends = _steps(0, min(bins.zero - 1, stop - levels))
        start = min([*ends, start], key=lambda end: _cost(bins, end, stop, levels))
    return start, stop


def _steps(first: int, last: int) -> list[int]:
    return [int(at) for at in np.linspace(first, last, _CANDIDATES).round()]


def _cost(bins: _Bins, start: int, stop: int, levels: int) -> float:
    """The divergence of the bins start..stop from their quantised form, in nats."""
    window = bins.counts[start:stop]
    original = window.copy()
    original[0] += bins.below + bins.counts[:start].sum()
    original[-1] += bins.above + bins.counts[stop:].sum()
    group = np.arange(len(window)) * levels // len(window)
    occupied = original > 0
    members = np.bincount(group, weights=occupied, minlength=levels)
    means = np.bincount(group, weights=window, minlength=levels) / np.maximum(members, 1)
    quantised = means[group]
    total = float(quantised[occupied].sum())
    if not total:
        return float("inf")
    p = original[occupied] / original.sum()
    # A bin of nothing but outliers has no counterpart; a small share keeps the divergence finite.
    q = np.maximum(quantised[occupied] / total, 1e-9)
    return float((p * np.log(p / q)).sum())
