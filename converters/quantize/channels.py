"""int8 weights with one scale a channel, chosen to be nearest to the float ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_CLIPS = (1.0, 0.97, 0.94, 0.9, 0.85, 0.8)
"""Shares of a channel's largest value that may become step 127. int8 is fine enough that only channels with a few
far values gain from less than 1, and none gained below 0.8 in the nets tried."""
_BLOCK = 1 << 16
"""Elements that are worked on at a time: what is computed on the way stays in the cache, and a large matrix needs no
second float copy."""


class Steps(NamedTuple):
    """Quantised weights: about `scale * steps`.

    Attributes:
        steps: int8 in -127..127, in the weights' shape.
        scale: float32, in the weights' rank with 1 on every axis that shares scales.
        error: the root of (squared error / squared weights); 0 where all weights are 0.
    """

    steps: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    error: float


def nearest(weight: npt.NDArray[np.float32], axes: Sequence[int]) -> Steps:
    """Quantise symmetrically, each channel with the scale of least squared error, never worse than the largest value's.

    Args:
        weight: finite, any shape.
        axes: those along which each index has a scale of its own; none for one scale in all.

    Source: the search for the clipping of least squared error is OMSE (Choukroun et al., Low-bit Quantization of
    Neural Networks for Efficient Inference, 2019); -128 is left out so that the range is symmetric (LiteRT 8-bit
    quantisation specification).
    """
    order = [*axes, *(axis for axis in range(weight.ndim) if axis not in axes)]
    turned = np.transpose(weight, order)
    kept = turned.shape[: len(axes)]
    # A matrix is taken as it lies: reshape would copy a transposed one.
    rows = turned if len(kept) == 1 and turned.ndim == 2 else turned.reshape(int(np.prod(kept, dtype=np.int64)), -1)
    steps = np.empty(rows.shape, np.int8)
    scale = np.empty(len(rows), np.float32)
    lost = 0.0
    count = max(1, _BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(rows), count):
        part = slice(start, start + count)
        steps[part], scale[part], error = _nearest_rows(np.ascontiguousarray(rows[part]))
        lost += error
    whole = float(np.einsum("ij,ij->", rows, rows, dtype=np.float64))
    back = np.argsort(order)
    return Steps(
        np.ascontiguousarray(np.transpose(steps.reshape(turned.shape), back)),
        scale.reshape([size if axis in axes else 1 for axis, size in enumerate(weight.shape)])
        if list(axes) == sorted(axes)
        else np.transpose(scale.reshape((*kept, *[1] * (weight.ndim - len(axes)))), back),
        float(np.sqrt(lost / whole)) if whole else 0.0,
    )


def _nearest_rows(
    rows: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], float]:
    """Quantise each row; returns steps, scales and the squared error of all."""
    largest = np.abs(rows).max(axis=1, initial=0)
    best_scale = _scales(largest, _CLIPS[0])
    best, best_error = _round(rows, best_scale)
    for clip in _CLIPS[1:]:
        # What the largest value alone would lose; a lower clip loses more of it.
        open_ones = np.flatnonzero(np.square((1 - clip) * largest.astype(np.float64)) < best_error)
        if not open_ones.size:
            break
        scale = _scales(largest[open_ones], clip)
        steps, error = _round(rows if len(open_ones) == len(rows) else rows[open_ones], scale)
        better = np.flatnonzero(error < best_error[open_ones])
        at = open_ones[better]
        best[at], best_scale[at], best_error[at] = steps[better], scale[better], error[better]
    return best.astype(np.int8), best_scale, float(best_error.sum())


def _scales(largest: npt.NDArray[np.float32], clip: float) -> npt.NDArray[np.float32]:
    # A scale below the smallest normal number would round to 0, or to a denormal that runtimes flush to 0.
    smallest = np.finfo(np.float32).tiny
    return np.where(largest > 0, np.maximum(largest * np.float32(clip / 127), smallest), 1).astype(np.float32)


def _round(
    rows: npt.NDArray[np.float32], scale: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """The steps, as whole floats, and each row's squared error.

    What is missed is summed in steps, of which float32 holds every square, and scaled then.
    """
    exact = rows / scale[:, None]
    steps = np.rint(exact)
    np.clip(steps, -127, 127, out=steps)
    np.subtract(exact, steps, out=exact)
    return steps, np.einsum("ij,ij->i", exact, exact) * np.square(scale, dtype=np.float64)
