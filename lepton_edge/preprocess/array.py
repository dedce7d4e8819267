"""The steps that work on any array; a sample has no batch axis here."""

import math

import numpy as np

from lepton_edge.bundle.binding import Array
from lepton_edge.errors import DataError
from lepton_edge.preprocess.spec import Cast, Layout, Normalize, Reshape

_PLACES = {"NHWC": 2, "NCHW": 2, "NWC": 1, "NCW": 1}
"""Axes of place (height, width) in each layout."""


def normalize(array: Array, step: Normalize) -> Array:
    """(x - mean) / std in float32 along the last axis."""
    last = array.shape[-1] if array.ndim else 1
    if len(step.mean) not in {1, last}:
        raise DataError(f"{len(step.mean)} means for {last} places of the last axis; put it before layout")
    mean, std = np.asarray(step.mean, np.float32), np.asarray(step.std, np.float32)
    return np.asarray((array.astype(np.float32) - mean) / std, np.float32)


def layout(array: Array, step: Layout) -> Array:
    """Channels-last to the order asked for; a missing channel axis is added with size 1."""
    places = _PLACES[step.to]
    if array.ndim == places:
        array = array[..., np.newaxis]
    if array.ndim != places + 1:
        raise DataError(f"an array of shape {list(array.shape)} cannot become {step.to} without its N")
    return np.ascontiguousarray(np.moveaxis(array, -1, 0) if step.to[1] == "C" else array)


def reshape(array: Array, step: Reshape) -> Array:
    known = math.prod(size for size in step.shape if size != -1)
    try:
        return array.reshape(step.shape)
    except ValueError as cause:
        raise DataError(
            f"{array.size} values of shape {list(array.shape)} do not fill {step.shape} ({known})"
        ) from cause


def cast(array: Array, step: Cast) -> Array:
    """To whole numbers: towards zero and clipped, so that nothing wraps round."""
    kind = np.dtype(step.to)
    if not np.issubdtype(kind, np.integer):
        return array.astype(kind)
    if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
        raise DataError(f"NaN cannot become {step.to}")
    limits = np.iinfo(kind)
    if np.can_cast(array.dtype, kind):
        return array.astype(kind)
    if not np.issubdtype(array.dtype, np.floating):
        given = np.iinfo(np.dtype(array.dtype).name)
        return np.asarray(array.clip(max(limits.min, given.min), min(limits.max, given.max)), kind)
    # The largest int64 is no float64: what reaches it is chosen, not cast.
    wide = np.trunc(array.astype(np.float64))
    over = wide >= float(limits.max)
    return np.where(over, limits.max, np.where(over, 0.0, np.maximum(wide, float(limits.min))).astype(kind)).astype(
        kind
    )
