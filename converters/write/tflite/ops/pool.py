"""Pools: over two axes at a time, with what ONNX counts differently put right by constants."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.channels import cut
from converters.write.tflite.ops.formula import Formula, known, product
from converters.write.tflite.ops.windows import (
    Window,
    Windows,
    pad,
    padding_of,
    pads_of,
    strides_of,
    windows_of,
)
from converters.write.tflite.program import Fixed, OptionOrAxis, Size, Value, nhwc
from converters.write.tflite.table import lowers

_MOST_SHIFTS = 64
"""Places of a window up to which it is written as that many slices."""
_Plane = Callable[[Value, Windows, Value], None]
"""A pool over two axes: input, windows, output."""
_NOT_NEGATIVE = {"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Softplus", "Exp", "Abs"}


@lowers("MaxPool", since=8, int8=True, moves=True)
def max_pool(low: Lowering) -> None:
    """MAX_POOL_2D; dilated windows, and types that it does not take, as the maximum of slices."""
    x, out = low.input(0), low.output()
    if low.optional_output(1) is not None:
        low.refuse("the places of the maxima")
    windows = _windows(low)
    dilated = any(window.dilation > 1 for window in windows)
    if x.dtype not in {"float32", "int8", "uint8"}:
        low.refuse(f"MaxPool of {x.dtype}")
    if dilated:
        _by_shifts(low, _padded(low, x, windows), windows, out)
    else:
        _by_planes(low, partial(_max_plane, low), windows, (x, out))


def _windows(low: Lowering) -> list[Window]:
    x, out = low.input(0), low.output()
    if x.rank not in {3, 4, 5}:
        low.refuse(f"a pool over {x.rank - 2} axes")
    return windows_of(low, x.shape[2:], low.integers("kernel_shape"), out.shape[2:])


def _padded(low: Lowering, x: Value, windows: Windows) -> Value:
    """With what no maximum takes; zeros, which are cheaper, where nothing is below them."""
    return pad(low, x, pads_of(low, windows), None if _not_negative(low, x) else -math.inf)


def _not_negative(low: Lowering, x: Value) -> bool:
    if x.quantization is not None:
        return int(x.quantization.zero_point[0]) == np.iinfo(np.dtype(x.dtype)).min
    source = low.node.inputs[0]
    maker = source.producer() if source is not None else None
    if maker is None or x.dtype != "float32":
        return False
    if maker.op_type == "Clip" and len(maker.inputs) > 1 and maker.inputs[1] is not None:
        bound = maker.inputs[1].const_value
        return bound is not None and bound.size == 1 and float(bound.numpy().reshape(-1)[0]) >= 0
    return maker.op_type in _NOT_NEGATIVE


def _by_shifts(low: Lowering, x: Value, windows: Windows, out: Value) -> None:
    """Along one axis after the other, the maximum over the places of a window, each a slice of the whole input."""
    outs = known([window.out for window in windows])
    if sum(window.kernel for window in windows) > _MOST_SHIFTS or outs is None:
        low.refuse(f"dilated windows of {[window.kernel for window in windows]} over axes of open size, or too large")
    formula, made = Formula(low), x
    for axis, (window, size) in enumerate(zip(windows, outs, strict=True), 2):
        source, reach = made, (size - 1) * window.stride + 1
        for place in range(window.kernel):
            first = place * window.dilation
            piece = cut(low, source, {axis: (first, first + reach, window.stride)})
            made = formula.binary("MAXIMUM", made, piece, low.like(piece)) if place else piece
    formula.same(made, out)


def _by_planes(low: Lowering, plane: _Plane, windows: Windows, border: tuple[Value, Value]) -> None:
    """Pool over one axis or three as over two: axes beside are made one with the batch, or have size 1."""
    x, out = border
    if len(windows) == 2:
        plane(x, windows, out)
    elif len(windows) == 1:
        wide = low.reshape(x, (*x.shape[:2], 1, *x.shape[2:]))
        made = low.like(out, (*out.shape[:2], 1, *out.shape[2:]))
        plane(wide, [_idle(1), *windows], made)
        low.reshape(made, out.shape, out)
    else:
        low.transpose(_deep(low, plane, windows, border), (0, 2, 1, 3, 4), out)


def _deep(low: Lowering, plane: _Plane, windows: Windows, border: tuple[Value, Value]) -> Value:
    """Height and width of each layer, then the depth: (N, C, D, H, W) -> (N, D', C, H', W')."""
    x, out = border
    depth, rows, columns = x.shape[2], out.shape[3], out.shape[4]
    layers = low.transpose(x, (0, 2, 1, 3, 4))
    flat = low.reshape(layers, (product(layers.shape[:2], low), *layers.shape[2:]))
    pooled = low.like(out, (flat.shape[0], x.shape[1], rows, columns))
    plane(flat, windows[1:], pooled)
    back = low.reshape(pooled, (x.shape[0], depth, x.shape[1], product([rows, columns], low)))
    turned = low.transpose(back, (0, 2, 1, 3))
    made = low.like(out, (x.shape[0], x.shape[1], out.shape[2], back.shape[3]))
    plane(turned, [windows[0], _idle(back.shape[3])], made)
    return low.reshape(low.transpose(made, (0, 2, 1, 3)), (x.shape[0], out.shape[2], x.shape[1], rows, columns))


def _idle(size: Size) -> Window:
    """A window of one entry."""
    return Window(size, 1, 1, 1, 0, 0, size)


def _max_plane(low: Lowering, x: Value, windows: Windows, out: Value) -> None:
    padding = padding_of(windows)
    if padding is None:
        x, padding = _padded(low, x, windows), "VALID"
    _emit_pool(low, "MAX_POOL_2D", windows, padding, (x, out))


def _emit_pool(low: Lowering, code: str, windows: Windows, padding: str, border: tuple[Value, Value]) -> None:
    """One of TFLite's pools over two axes."""
    x, out = border
    height, width = windows
    options: dict[str, OptionOrAxis] = {
        "padding": padding,
        **strides_of(windows),
        "filter_height": height.kernel,
        "filter_width": width.kernel,
    }
    # Each channel is pooled alone, so they may lie in any order.
    rule = Fixed({0: nhwc(4)}, {0: nhwc(4)}, (((0, 1), (-1, 1)),))
    low.emit(code, [x], [out], options, rule=rule)


@lowers("AveragePool", since=7, int8=True, moves=True)
def average_pool(low: Lowering) -> None:
    """AVERAGE_POOL_2D, which divides by the number of entries inside the input."""
    x, windows = low.input(0), _windows(low)
    if x.dtype not in {"float32", "int8"}:
        low.refuse(f"AveragePool of {x.dtype}")
    counted = bool(low.integer("count_include_pad", 0))
    _by_planes(low, partial(_average_plane, low, counted), windows, (x, low.output()))


def _average_plane(low: Lowering, counted: bool, x: Value, windows: Windows, out: Value) -> None:
    if not counted and padding_of(windows) == "SAME" and all(window.dilation == 1 for window in windows):
        mean_plane(low, x, windows, "SAME", out)
        return
    counts = [_counts(low, window, counted=counted) for window in windows]
    x = pad(low, x, pads_of(low, windows))
    if all(count is None for count in counts):
        mean_plane(low, x, windows, "VALID", out)
        return
    if x.quantization is not None:
        low.refuse("padding that is not counted, in int8")
    made = low.like(out)
    mean_plane(low, x, windows, "VALID", made)
    rows, columns = (
        np.ones(1) if count is None else window.kernel / count for count, window in zip(counts, windows, strict=True)
    )
    factors = (rows[:, None] * columns[None, :])[None, None]
    Formula(low).mul(made, low.constant(factors.astype(np.float32), what="counts"), out)


def _counts(low: Lowering, window: Window, *, counted: bool) -> npt.NDArray[np.int64] | None:
    """How many entries each window divides by; None where it is the whole window everywhere.

    Padding is counted where the node says so, but not what a window that is rounded up hangs over it.
    """
    if window.is_valid:
        return None
    if not isinstance(window.size, int) or not isinstance(window.out, int):
        return None if counted else low.refuse("padding that is not counted, over an axis of open size")
    first, last = (
        (0, window.begin + window.size + window.tail) if counted else (window.begin, window.begin + window.size)
    )
    starts = np.arange(window.out)[:, None] * window.stride + np.arange(window.kernel)[None, :] * window.dilation
    inside = ((starts >= first) & (starts < last)).sum(axis=1)
    return None if (inside == window.kernel).all() else inside


def mean_plane(low: Lowering, x: Value, windows: Windows, padding: str, out: Value) -> None:
    """The mean of each window; of dilated ones by a convolution of each channel with equal weights."""
    if all(window.dilation == 1 for window in windows):
        _emit_pool(low, "AVERAGE_POOL_2D", windows, padding, (x, out))
        return
    channels = x.shape[1]
    if not isinstance(channels, int) or x.quantization is not None or padding == "SAME":
        low.refuse("dilated windows, padded, in int8 or over an open number of channels")
    height, width = windows
    share = np.full((channels, 1, height.kernel, width.kernel), 1 / (height.kernel * width.kernel), np.float32)
    options: dict[str, OptionOrAxis] = {
        "padding": padding,
        **strides_of(windows),
        "dilation_h_factor": height.dilation,
        "dilation_w_factor": width.dilation,
        "depth_multiplier": 1,
    }
    inputs = [x, low.constant(share, what="share"), low.constant(np.zeros(channels, np.float32), what="bias")]
    low.emit("DEPTHWISE_CONV_2D", inputs, [out], options, rule=Fixed({0: nhwc(4), 1: (1, 2, 3, 0)}, {0: nhwc(4)}))


@lowers("LpPool", since=2)
def lp_pool(low: Lowering) -> None:
    """(sum |x|^p)^(1/p)."""
    formula, order, windows, out = Formula(low), low.integer("p", 2), _windows(low), low.output()
    powers = pad(low, _powers(low, low.input(0), order), pads_of(low, windows))
    bare = [
        window._replace(size=size, begin=0, end=0, tail=0)
        for window, size in zip(windows, powers.shape[2:], strict=True)
    ]
    mean = low.like(out)
    _by_planes(low, lambda x, over, made: mean_plane(low, x, over, "VALID", made), bare, (powers, mean))
    total = formula.mul(mean, math.prod(window.kernel for window in windows))
    formula.power(total, 1 / order, out)


def _powers(low: Lowering, x: Value, order: int) -> Value:
    formula = Formula(low)
    if order < 1:
        low.refuse(f"a norm of order {order}")
    return formula.mul(x, x) if order == 2 else formula.power(formula.unary("ABS", x), order)


def _spatial(low: Lowering) -> Sequence[int]:
    rank = low.input(0).rank
    return range(2, rank) if rank > 2 else low.refuse("no axes to pool over")


@lowers("GlobalAveragePool", int8=True)
def global_average_pool(low: Lowering) -> None:
    Formula(low).reduce("MEAN", low.input(0), _spatial(low), low.output())


@lowers("GlobalMaxPool", int8=True, moves=True)
def global_max_pool(low: Lowering) -> None:
    Formula(low).reduce("REDUCE_MAX", low.input(0), _spatial(low), low.output())


@lowers("GlobalLpPool", since=2)
def global_lp_pool(low: Lowering) -> None:
    formula, order = Formula(low), low.integer("p", 2)
    total = formula.reduce("SUM", _powers(low, low.input(0), order), _spatial(low))
    formula.power(total, 1 / order, low.output())
