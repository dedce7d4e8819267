"""Parts of tensors along one axis, biases of zeros."""

import numpy as np

from converters.tflite.model import Quantization
from converters.write.tflite.lowering import Lowering
from converters.write.tflite.program import Axes, Axis, AxisMask, PerAxis, Size, Together, Value

_LEAST = -128


def zero_bias(low: Lowering, x: Value, weights: Value, axis: int = 0) -> Value:
    """A bias of zeros for the channels that `axis` of the weights counts; int32 at its own scale for int8."""
    count = weights.shape[axis]
    if not isinstance(count, int):
        low.refuse("the number of its weights is not known")
    if x.quantization is None or weights.quantization is None:
        return low.constant(np.zeros(count, np.float32), what="bias")
    made = low.constant(np.zeros(count, np.int32), what="bias")
    scale = (x.quantization.scale[0] * weights.quantization.scale).astype(np.float32)
    made.quantization = Quantization(scale, np.zeros(len(scale), np.int64))
    return made


def kernel_weights(low: Lowering, x: Value, weights: Value, *, hybrid: bool = True) -> Value:
    """Weights as the file keeps them: int8 for a kernel that multiplies float by it, else behind a DEQUANTIZE.

    A DEQUANTIZE of a constant is done once, at load. Measured on MobileNetV2: 1.0x the time of float weights, where
    hybrid convolutions, which XNNPACK leaves to TFLite's own kernels, take 1.8x. TFLite's own hybrid kernels lose the
    sign of a product with -128, on x86 (LiteRT 2.3).
    """
    if weights.quantization is not None and weights.quantization.zero_point.any():
        low.refuse("its weights have zero points other than 0, which the int8 kernel does not read")
    stored = weights.stored
    if stored is None or stored.quantization is None:
        return weights if stored is None or stored.dtype != "float16" else _unpacked(low, weights, stored)
    if stored.dtype != "int8" or stored.quantization.zero_point.any() or x.dtype != "float32":
        return weights
    return stored if hybrid and stored.array().min(initial=0) > _LEAST else _unpacked(low, weights, stored)


def _unpacked(low: Lowering, weights: Value, stored: Value) -> Value:
    made = low.temp(weights.shape, "float32")
    low.emit("DEQUANTIZE", [stored], [made], rule=Together())
    return made


def split(low: Lowering, value: Value, axis: int, count: int) -> list[Value]:
    """Equal parts along an axis."""
    size = value.shape[axis]
    if not isinstance(size, int) or size % count:
        low.refuse(f"{size} entries cannot be split into {count} parts")
    shape = [size // count if at == axis else one for at, one in enumerate(value.shape)]
    parts = [low.like(value, shape) for _ in range(count)]
    rule = Together(straight=frozenset({axis}))
    low.emit("SPLIT", [Axes((axis,), scalar=True), value], parts, {"num_splits": count}, rule=rule)
    return parts


def parts(low: Lowering, value: Value, axis: int, count: int) -> list[Value]:
    """Equal parts along an axis; of a constant, constants, their scales with them."""
    if not value.constant:
        return split(low, value, axis, count)
    array, scales = value.array(), value.quantization
    length = array.shape[axis] // count
    made = []
    for index in range(count):
        picked = slice(index * length, (index + 1) * length)
        data = array[(slice(None),) * axis + (picked,)]
        own = scales
        if scales is not None and scales.per_channel and scales.axis == axis:
            own = Quantization(scales.scale[picked], scales.zero_point[picked], axis)
        made.append(Value(f"{value.name}/{index}", data.shape, value.dtype, own, data))
    return made


def concatenated(low: Lowering, parts: list[Value], axis: int, out: Value) -> None:
    """The parts one behind the other."""
    low.emit("CONCATENATION", parts, [out], {"axis": Axis(axis)}, rule=Together(straight=frozenset({axis})))


def cut(low: Lowering, value: Value, bounds: dict[int, tuple[int, int, int]], out: Value | None = None) -> Value:
    """A part of a tensor: axis -> (begin, end, step) with known ends; other axes whole, whatever their size."""
    shape: list[Size] = list(value.shape)
    table = np.zeros((3, value.rank), np.int32)
    table[2] = 1
    for axis, (begin, end, step) in bounds.items():
        shape[axis] = -(-(end - begin) // step)
        table[:, axis] = begin, end, step
    made = out or low.like(value, shape)
    whole = AxisMask(frozenset(range(value.rank)) - frozenset(bounds))
    options = {"begin_mask": whole, "end_mask": whole}
    rows = [PerAxis(row) for row in table]
    low.emit("STRIDED_SLICE", [value, *rows], [made], options, rule=Together(straight=frozenset(bounds)))
    return made
