"""Weights stored as float16: half the file, the arithmetic of float32.

float16 has 11 bits of precision from 6e-5 to 65504 alone, and batch norm folded into a convolution leaves channels
thousands of times apart. Where that range does not hold a tensor, each channel is divided by a power of two, which
loses nothing, and multiplied back at load.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.quantize.insert import Inserter

_MIN_ELEMENTS = 256
"""Below this the Cast costs about as much as the bytes saved."""
_LIMIT = float(np.finfo(np.float16).max)
_LOST = 2.0**-7
"""Root of (squared error / squared weights) that underflow may cost a channel: about what int8 weights cost. Rounding
alone costs 2^-12."""
_DEAD = 2.0**-16
"""A channel all below this share of the tensor's largest value is one that training switched off: batch norm folded
into a convolution leaves such channels, and float16's rounding of its neighbours outweighs what they add."""
_SCALED = {"DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"}


def to_float16(model: ir.Model, *, scaled: bool = True) -> ir.Model:
    """Store float32 weights as float16, each behind one Cast that runtimes fold at load.

    The arithmetic stays float32 (CPUs have few float16 kernels), inputs and outputs keep their types. A tensor stays
    float32 that is small, holds NaN or Inf, or has a channel, along its first or last axis, of which float16 loses
    more than 2^-7 even so; and so do the scales of quantised tensors.

    Args:
        model: canonical, at opset 20; it is not changed.
        scaled: divide channels where float16 alone does not carry them; else such tensors stay float32, for runtimes
            that fold the Cast at load and no more.
    """
    copy = model.clone()
    inserter = Inserter(copy.graph)
    for value in list(copy.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < _MIN_ELEMENTS or not _movable(value):
            continue
        half = _halved(tensor.numpy())
        if half is None or (half.scale is not None and not scaled):
            continue
        uses, name, at = list(value.uses()), value.name, inserter.first()
        steps = inserter.constant(f"{name}_f16", half.values)
        real = at("Cast", [steps], f"{name}_f32", tensor.dtype, to=tensor.dtype.value)
        if half.scale is not None:
            real = at("Mul", [real, inserter.constant(f"{name}_scale", half.scale)], f"{name}_scaled", tensor.dtype)
        real.shape = value.shape
        for use in uses:
            use.node.replace_input_with(use.idx, real)
    inserter.drop_unused()
    return copy


def _movable(value: ir.Value) -> bool:
    return not value.is_graph_output() and not any(use.node.op_type in _SCALED for use in value.uses())


class _Half(NamedTuple):
    """A tensor is values * scale; scale: powers of two that broadcast, None for 1."""

    values: npt.NDArray[np.float16]
    scale: npt.NDArray[np.float32] | None


def _halved(array: npt.NDArray[np.float32]) -> _Half | None:
    """The tensor in float16; None where float16 does not carry it."""
    if not np.isfinite(array).all():
        return None
    if _fits(array):
        return _Half(array.astype(np.float16), None)
    for axis in sorted({0, array.ndim - 1}):
        others = tuple(index for index in range(array.ndim) if index != axis)
        _, exponent = np.frexp(np.abs(array).max(axis=others, keepdims=True))
        scale = np.ldexp(np.float32(1), np.clip(exponent - 1, -126, 127)).astype(np.float32)
        if _fits(array / scale):
            return _Half((array / scale).astype(np.float16), scale)
    return None


def _fits(array: npt.NDArray[np.float32]) -> bool:
    """Whether float16 carries every channel."""
    largest = float(np.abs(array).max())
    if largest > _LIMIT:
        return False
    miss = array - array.astype(np.float16)
    return all(_channels_fit(array, miss, axis, largest) for axis in {0, array.ndim - 1})


def _channels_fit(array: npt.NDArray[np.float32], miss: npt.NDArray[np.float32], axis: int, largest: float) -> bool:
    others = tuple(index for index in range(array.ndim) if index != axis)
    alive = np.abs(array).max(axis=others) > _DEAD * largest
    whole = np.square(array, dtype=np.float64).sum(axis=others)
    lost = np.square(miss, dtype=np.float64).sum(axis=others)
    return bool((lost[alive] <= _LOST**2 * whole[alive]).all())
