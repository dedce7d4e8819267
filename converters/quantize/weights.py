"""Constants of a unit in int8: weights symmetric with one scale a channel, bias int32 at input x weight scale.

Source: LiteRT 8-bit quantization specification (weights symmetric in -127..127, zero point 0; bias int32 with scale
input_scale * weight_scale and zero point 0).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from converters.quantize.channels import Steps, nearest
from converters.quantize.encoding import STEPS, Encoding

LIMIT = 127
MAX_BIAS = 2**30
"""A bias beyond this would leave the accumulator no room; its channel gets a coarser weight scale instead."""

Floats = npt.NDArray[np.float32]


class Weights(NamedTuple):
    """steps: S8, of the weights' shape. scale: float32, shape (channels,). real = scale * steps."""

    steps: npt.NDArray[np.int8]
    scale: Floats


class Known:
    """What all plans of a graph have in common.

    Steps that were found before: the nearest ones depend on the weights alone. And the means of what the weights are
    multiplied with, by unit, shape (input channels,).
    """

    def __init__(self, means: Mapping[str, Floats] | None = None) -> None:
        self.means = means or {}
        self._steps: dict[tuple[object, ...], Steps] = {}

    def steps(self, key: tuple[object, ...], find: Callable[[], Steps]) -> Steps:
        """Those of a key; found now where they are not known yet. Nobody may change what is given."""
        if key not in self._steps:
            self._steps[key] = find()
        return self._steps[key]

    def forget(self) -> None:
        """Let go of a quarter of the model's size."""
        self._steps.clear()


def quantize_weights(
    weights: Floats,
    *,
    axis: int,
    input_scale: float | None = None,
    bias: Floats | None = None,
    found: Steps | None = None,
) -> Weights:
    """Quantise weights to S8.

    Args:
        weights: any shape.
        axis: of the output channels.
        input_scale: of the activation that they are multiplied with; with `bias` it decides which scales are raised.
        bias: shape (channels,).
        found: what `nearest` gives for the weights, where that is known.
    """
    found = found or nearest(weights, [axis])
    scale = found.scale.reshape(-1)
    if bias is None or not input_scale:
        return Weights(found.steps, scale)
    least = (np.abs(bias.astype(np.float64)) / (MAX_BIAS * input_scale)).astype(np.float32)
    raised = np.maximum(scale, least)
    if np.array_equal(raised, scale):
        return Weights(found.steps, scale)
    shape = [-1 if index == axis else 1 for index in range(weights.ndim)]
    steps = np.clip(np.rint(weights / raised.reshape(shape)), -LIMIT, LIMIT).astype(np.int8)
    return Weights(steps, raised)


def correct_bias(bias: Floats, weights: Floats, made: Weights, mean: Floats, *, axis: int) -> Floats:
    """Add to a bias what the weights' rounding takes away on average.

    Args:
        bias: shape (channels,).
        weights: as they were: of a convolution (axis 0, its window last) or of a matrix product (axis 1). The bias of a
            transposed convolution (axis 1, window last) stays: how much of a window adds up differs by place.
        made: what they became.
        mean: of what they are multiplied with, shape (input channels,).
        axis: of the output channels.

    Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section 4.2,
    with means that calibration measured.
    """
    if axis == 1 and weights.ndim > 2:
        return bias
    shape = [-1 if index == axis else 1 for index in range(weights.ndim)]
    lost = weights - made.steps * made.scale.reshape(shape)
    if axis == 1:
        return bias + mean @ lost
    # Each group of output channels reads its own input channels.
    window = lost.reshape(*lost.shape[:2], -1).sum(axis=2)
    groups = max(1, len(mean) // window.shape[1])
    by_group = window.reshape(groups, -1, window.shape[1]) * mean.reshape(groups, 1, -1)
    corrected: Floats = bias + by_group.sum(axis=2).reshape(-1)
    return corrected


def quantize_bias(bias: Floats, scale: Floats) -> npt.NDArray[np.int32]:
    """Quantise a bias at input scale x weight scale, shape (channels,)."""
    limits = np.iinfo(np.int32)
    steps = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    return np.clip(steps, limits.min, limits.max).astype(np.int32)


def quantize_activation(values: Floats, encoding: Encoding) -> npt.NDArray[np.uint8]:
    """A constant that stands where an activation could, in U8 steps."""
    steps = np.rint(values.astype(np.float64) / encoding.scale) + encoding.zero_point
    made: npt.NDArray[np.uint8] = np.clip(steps, 0, STEPS).astype(np.uint8)
    return made
