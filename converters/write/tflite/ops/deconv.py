"""Transposed convolutions: SAME where that is just what is meant, else VALID and a cut."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.channels import concatenated, cut, kernel_weights, parts, zero_bias
from converters.write.tflite.ops.conv import bias_size, tall
from converters.write.tflite.ops.formula import known
from converters.write.tflite.program import Choice, Fixed, Value, nhwc
from converters.write.tflite.table import lowers

_MOST_PARTS = 4
"""Groups up to which each is a convolution of its own; more are one with zeros between the groups' weights."""
_MOST_ZEROS = 1 << 24
"""Most weights that are written so."""


class Spread(NamedTuple):
    """A transposed window along one axis: output = stride * input - begin + place in the kernel."""

    size: int
    kernel: int
    stride: int
    begin: int
    out: int

    @property
    def full(self) -> int:
        """All that is reached, from the first entry on."""
        return (self.size - 1) * self.stride + self.kernel

    @property
    def is_same(self) -> bool:
        """Whether SAME of a convolution from the output's size to the input's pads just so."""
        total = max((self.size - 1) * self.stride + self.kernel - self.out, 0)
        return -(-self.out // self.stride) == self.size and self.begin == total // 2

    @property
    def uncut(self) -> int:
        """What VALID gives with the wanted part inside."""
        return max(self.full, self.begin + self.out)


@lowers("ConvTranspose", int8=True, hybrid=True)
def conv_transpose(low: Lowering) -> None:
    """TRANSPOSE_CONV or CONV_3D_TRANSPOSE."""
    x, weights, out = low.input(0), low.input(1), low.output()
    if x.rank not in {3, 4, 5} or (x.rank == 5 and x.quantization is not None):
        low.refuse(f"a transposed convolution of {x.dtype} over {x.rank - 2} axes")
    sizes, kernel = known(x.shape[2:]), known(weights.shape[2:])
    if sizes is None or kernel is None or not isinstance(x.shape[1], int):
        low.refuse("sizes that are not known")
    spreads = _spreads(low, sizes, kernel)
    group = low.integer("group", 1)
    bias = low.optional(2) or _zero_bias(low, x, weights, group)
    weights = _dilated(low, weights)
    if x.rank == 3:
        spreads = [Spread(1, 1, 1, 0, 1), *spreads]
        x, weights = tall(low, x), tall(low, weights)
    made = out if out.rank > 3 else low.like(out, (*out.shape[:2], 1, *out.shape[2:]))
    ends = _Ends(x, bias, made)
    if group == 1:
        _emit(low, ends, kernel_weights(low, x, weights, hybrid=False), spreads)
    elif group <= _MOST_PARTS or x.quantization is not None:
        _grouped(low, ends, weights, spreads, group)
    else:
        _emit(low, ends, _spread_groups(low, weights, group), spreads)
    if made is not out:
        low.reshape(made, out.shape, out)


class _Ends(NamedTuple):
    x: Value
    bias: Value
    out: Value


def _zero_bias(low: Lowering, x: Value, weights: Value, group: int) -> Value:
    made = zero_bias(low, x, weights, 1)
    if group == 1:
        return made
    if x.quantization is not None:
        low.refuse("groups without a bias in int8")
    return low.constant(np.zeros(bias_size(low, made) * group, np.float32), what="bias")


def _spreads(low: Lowering, sizes: Sequence[int], kernel: Sequence[int]) -> list[Spread]:
    """Pads and sizes as ONNX says them (ConvTranspose: output_padding, output_shape, auto_pad)."""
    count = len(sizes)
    strides, dilations = low.integers("strides", [1] * count), low.integers("dilations", [1] * count)
    extra, pads = low.integers("output_padding", [0] * count), low.integers("pads", [0] * 2 * count)
    wanted, kind = low.integers("output_shape"), low.text("auto_pad", "NOTSET")
    found = []
    for axis in range(count):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        full = strides[axis] * (sizes[axis] - 1) + reach + extra[axis]
        begin = pads[axis]
        out = full - begin - pads[axis + count]
        if wanted or kind in {"SAME_UPPER", "SAME_LOWER"}:
            out = wanted[axis - count] if wanted else sizes[axis] * strides[axis]
            total = max(full - out, 0)
            begin = total // 2 if kind == "SAME_UPPER" else total - total // 2
        elif kind == "VALID":
            begin, out = 0, full
        found.append(Spread(sizes[axis], reach, strides[axis], begin, out))
    if known(low.output().shape[2:]) not in {None, tuple(spread.out for spread in found)}:
        low.refuse("its output has not the size that its attributes say")
    if any(spread.begin < 0 or spread.out < 1 or spread.uncut - spread.full >= spread.stride for spread in found):
        low.refuse("pads beyond what it reaches")
    return found


def _dilated(low: Lowering, weights: Value) -> Value:
    """The kernel has no dilation: zeros stand between the weights instead."""
    dilations = low.integers("dilations", [1] * (weights.rank - 2))
    if set(dilations) <= {1}:
        return weights
    if not weights.constant:
        low.refuse("dilations with computed weights")
    array = weights.array()
    wide = [(size - 1) * step + 1 for size, step in zip(array.shape[2:], dilations, strict=True)]
    data = np.zeros((*array.shape[:2], *wide), array.dtype)
    data[(slice(None), slice(None), *(slice(None, None, step) for step in dilations))] = array
    return Value(weights.name, data.shape, weights.dtype, weights.quantization, data)


def _spread_groups(low: Lowering, weights: Value, group: int) -> Value:
    """Weights (in, out / group, ..) as (in, out, ..) with zeros where an input is in another group than the output."""
    if not weights.constant:
        low.refuse(f"computed weights in {group} groups")
    array = weights.array()
    if array.size * group > _MOST_ZEROS:
        low.refuse(f"{array.size} weights in {group} groups")
    count, width = array.shape[0] // group, array.shape[1]
    data = np.zeros((array.shape[0], width * group, *array.shape[2:]), array.dtype)
    for index in range(group):
        rows = slice(index * count, (index + 1) * count)
        data[rows, index * width : (index + 1) * width] = array[rows]
    return Value(weights.name, data.shape, weights.dtype, None, data)


def _grouped(low: Lowering, ends: _Ends, weights: Value, spreads: Sequence[Spread], group: int) -> None:
    x, bias, out = ends
    if x.quantization is not None and weights.quantization is not None and weights.quantization.per_channel:
        low.refuse("groups with a scale per channel")
    if group > _MOST_PARTS:
        low.refuse(f"{group} groups in int8")
    outs = [low.like(out, (out.shape[0], bias_size(low, bias) // group, *out.shape[2:])) for _ in range(group)]
    columns = [parts(low, value, axis, group) for value, axis in ((x, 1), (bias, 0), (weights, 0))]
    for piece, shift, kernel, made in zip(*columns, outs, strict=True):
        _emit(low, _Ends(piece, shift, made), kernel, spreads)
    concatenated(low, outs, 1, out)


def _emit(low: Lowering, ends: _Ends, weights: Value, spreads: Sequence[Spread]) -> None:
    x, bias, out = ends
    same = all(spread.is_same for spread in spreads)
    sizes = [spread.out if same else spread.uncut for spread in spreads]
    fits = sizes == [spread.out for spread in spreads]
    made = out if fits else low.like(out, (*out.shape[:2], *sizes))
    deep = x.rank == 5
    kernel = (2, 3, 4, 1, 0) if deep else (1, 2, 3, 0)
    ties = (((2, 1), (1, 0)), ((1, 1), (3, 0), (-1, 1)))
    rule = Fixed({1: kernel, 2: nhwc(x.rank)}, {0: nhwc(x.rank)}, ties)
    names = ("stride_d", "stride_h", "stride_w")[-len(spreads) :]
    options = {name: spread.stride for name, spread in zip(names, spreads, strict=True)}
    shape = _shape(low, x, [*sizes, bias_size(low, bias)])
    low.emit(
        "CONV_3D_TRANSPOSE" if deep else "TRANSPOSE_CONV",
        [shape, weights, x, bias],
        [made],
        {"padding": "SAME" if same else "VALID", **options},
        rule=rule,
    )
    if not fits:
        bounds = {axis: (spread.begin, spread.begin + spread.out, 1) for axis, spread in enumerate(spreads, 2)}
        cut(low, made, bounds, out)


def _shape(low: Lowering, x: Value, rest: Sequence[int]) -> Value:
    """The output's shape as the kernel wants to be told it: channels last; computed where the batch is open."""
    if isinstance(x.shape[0], int):
        return low.constant(np.array([x.shape[0], *rest], np.int32), what="shape")
    whole = low.temp((x.rank,), "int32")
    rule = Choice((Fixed({0: nhwc(x.rank)}), Fixed()))
    low.emit("SHAPE", [x], [whole], {"out_type": "int32"}, rule=rule)
    made = low.temp((x.rank,), "int32")
    tail = low.constant(np.array(rest, np.int32), what="shape")
    low.emit("CONCATENATION", [cut(low, whole, {0: (0, 1, 1)}), tail], [made], {"axis": 0})
    return made
