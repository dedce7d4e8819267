"""The range whose quantised values tell most of the original ones: TensorRT's calibration, for affine integers.

Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017: among clipped ranges of a finely binned histogram take
the one whose distribution P, its outliers put into the outermost bins, diverges least (Kullback-Leibler) from Q, the
same bins merged into as many groups as there are integers and spread out again over the occupied ones.

Adapted: there the bins hold magnitudes; here they hold values, and a range ends at the threshold or where the values
end before it. Zeros are left out, because every range holds them exactly. As there, the threshold is a sixteenth of
the largest magnitude at least.
"""

import math
from typing import NamedTuple

import numpy as np

from converters.calibrate.histogram import F64, Buckets

BINS = 4096
_CANDIDATES = 96


def least_divergence(buckets: Buckets, low: float, high: float, *, levels: int) -> tuple[float, float]:
    """The ends of the best range within low <= 0 <= high, of which one is not 0."""
    bins = _bin(buckets, low, high)
    count = len(bins.counts)
    thresholds = np.linspace(max(bins.zero, count - bins.zero), levels, _CANDIDATES).round()
    pairs = [(max(0, bins.zero - size), min(count, bins.zero + size)) for size in map(int, thresholds)]
    start, stop = min(pairs, key=lambda ends: _cost(bins, ends[0], ends[1], levels))  # the widest of equals
    # Whole bins can end a little beyond the values.
    return max(low, bins.real(start)), min(high, bins.real(stop))


class _Bins(NamedTuple):
    """Even bins with an edge at zero. counts: of shape (n,). zero: how many lie below zero. width: in real units."""

    counts: F64
    zero: int
    width: float

    def real(self, edge: int) -> float:
        return (edge - self.zero) * self.width


def _bin(buckets: Buckets, low: float, high: float) -> _Bins:
    """Cut a range into about BINS bins, in which all values lie."""
    width = (high - low) / BINS
    zero, rest = math.ceil(-low / width), math.ceil(high / width)
    edges = np.arange(-zero, rest + 1) * width
    kept = buckets.value != 0
    held = np.where(kept, buckets.counts, 0).astype(np.float64)
    after = np.cumsum(held)
    upto = np.interp(
        edges, np.stack([buckets.low, buckets.high], 1).ravel(), np.stack([after - held, after], 1).ravel()
    )
    return _Bins(np.diff(upto), zero, width)


def _cost(bins: _Bins, start: int, stop: int, levels: int) -> float:
    """The divergence of the bins start..stop from their quantised form, in nats."""
    window = bins.counts[start:stop]
    original = window.copy()
    original[0] += bins.counts[:start].sum()
    original[-1] += bins.counts[stop:].sum()
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
