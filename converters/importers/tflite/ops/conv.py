"""Convolutions, fully connected layers, products of matrices, pools."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from converters.importers.tflite.graph import Attribute
from converters.importers.tflite.op import Op, Rule
from converters.importers.tflite.scope import is_steps

NCHW = (0, 3, 1, 2)
NCDHW = (0, 4, 1, 2, 3)
_OIHW = (0, 3, 1, 2)
"""Of weights that lie as OHWI."""
_FROM_1HWO = (3, 0, 1, 2)
_FROM_DHWIO = (4, 3, 0, 1, 2)
_WHOLE = {"int32", "int64"}
_ZERO_POINT_0 = {"DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}


def conv_2d(op: Op) -> None:
    op.rank(0, 4)
    _weights(op)
    weights = op.shape(1)
    op.rank(1, 4)
    channels = op.shape(0)[3]
    if not weights[3] or channels % weights[3]:
        raise op.refuse(f"weights for {weights[3]} channels on an input of {channels}")
    windows = _windows(op, weights[1:3], op.sizes(0)[1:3])
    made = op.add(
        "Conv", op.real(0, NCHW), op.real(1, _OIHW), _bias(op, 0, 1, 2), group=channels // weights[3], **windows
    )
    op.out(made, NCHW)


def depthwise_conv_2d(op: Op) -> None:
    op.rank(0, 4)
    op.rank(1, 4)
    _weights(op)
    _, high, wide, outputs = op.shape(1)
    channels = op.shape(0)[3]
    if not channels or outputs % channels:
        raise op.refuse(f"weights for {outputs} outputs on an input of {channels} channels")
    windows = _windows(op, (high, wide), op.sizes(0)[1:3])
    made = op.add("Conv", op.real(0, NCHW), op.real(1, _FROM_1HWO), _bias(op, 0, 1, 2), group=channels, **windows)
    op.out(made, NCHW)


def conv_3d(op: Op) -> None:
    op.rank(0, 5)
    op.rank(1, 5)
    weights = op.shape(1)
    windows = _windows(op, weights[:3], op.sizes(0)[1:4])
    group = op.shape(0)[4] // max(1, weights[3])
    made = op.add("Conv", op.real(0, NCDHW), op.real(1, _FROM_DHWIO), _bias(op, 0, 1, 2), group=group, **windows)
    op.out(made, NCDHW)


def transpose_conv(op: Op) -> None:
    """Weights lie as OHWI; the first input is the shape of the output."""
    _transposed(op, op.shape(1)[1:3], _FROM_1HWO, NCHW)


def conv_3d_transpose(op: Op) -> None:
    """Weights lie as DHWOI."""
    _transposed(op, op.shape(1)[:3], _FROM_DHWIO, NCDHW)


def _transposed(op: Op, kernel: Sequence[int], order: tuple[int, ...], perm: tuple[int, ...]) -> None:
    """Padding is that of the convolution which it turns around. Source: LiteRT, kernels/transpose_conv.cc."""
    op.rank(2, len(perm))
    _weights(op)
    strides = _along(op, "stride_", len(kernel))
    dilations = _along(op, "dilation_", len(kernel), "_factor")
    reach = [(length - 1) * dilation + 1 for length, dilation in zip(kernel, dilations, strict=True)]
    wanted = op.known(0)[1:-1] if op.shape(0) == (len(perm),) else []
    given = op.sizes(2)[1:-1]
    sizes = [size for size in (*wanted, *given) if size is not None]
    if len(sizes) < 2 * len(kernel):
        _transposed_open(op, kernel, order, perm)
        return
    begins, ends, more = [], [], []
    for out, size, length, stride in zip(sizes[: len(kernel)], sizes[len(kernel) :], reach, strides, strict=True):
        full = (size - 1) * stride + length
        begin = max(full - out, 0) // 2 if _is_same(op) else 0
        begins.append(begin)
        ends.append(max(full - begin - out, 0))
        more.append(max(out - full + begin, 0))
    attributes: dict[str, Attribute] = {
        "kernel_shape": list(kernel), "strides": strides, "dilations": dilations, "pads": [*begins, *ends],
    }  # fmt: skip
    if any(more):
        attributes["output_padding"] = more
    made = op.add("ConvTranspose", op.real(2, perm), op.real(1, order), _bias(op, 2, 1, 3), **attributes)
    op.out(made, perm)


def _transposed_open(op: Op, kernel: Sequence[int], order: tuple[int, ...], perm: tuple[int, ...]) -> None:
    """Sizes that show while it runs: all that the windows reach, then grown or cut to the size that is asked for."""
    count, graph = len(kernel), op.scope.graph
    strides, zeros = _along(op, "stride_", count), op.ints_of([0] * count)
    how: dict[str, Attribute] = {"dilations": _along(op, "dilation_", count, "_factor"), "strides": strides}
    made = op.add("ConvTranspose", op.real(2, perm), op.real(1, order), kernel_shape=list(kernel), **how)
    axes = op.ints_of(range(2, 2 + count))
    wanted = op.add("Slice", op.ints(0), op.ints_of([1]), op.ints_of([1 + count]))
    full = op.add("Slice", op.add("Shape", made), op.ints_of([2]), op.ints_of([2 + count]))
    missing = op.add("Max", op.add("Sub", wanted, full), zeros)
    made = op.add("Pad", made, op.add("Concat", zeros, missing, axis=0), "", axes)
    begin = zeros
    if _is_same(op):
        begin = op.add("Div", op.add("Max", op.add("Sub", full, wanted), zeros), op.ints_of([2]))
    made = op.add("Slice", made, begin, op.add("Add", begin, wanted), axes)
    bias = _bias(op, 2, 1, 3)
    if bias:
        made = op.add("Add", made, op.add("Unsqueeze", bias, graph.ints(range(1, 1 + count))))
    op.out(made, perm)


def _is_same(op: Op) -> bool:
    return op.option("padding", "SAME") == "SAME"


def fully_connected(op: Op) -> None:
    if op.option("weights_format", "DEFAULT") != "DEFAULT":
        raise op.refuse("its weights are shuffled for one kind of processor")
    op.rank(1, 2)
    width = op.shape(1)[1]
    keep = op.flag("keep_num_dims")
    _weights(op)
    x = op.real(0)
    if not keep and (op.rank(0) != 2 or op.sizes(0)[1] != width):
        x = op.add("Reshape", x, op.ints_of([-1, width]))
    weights = op.real(1, (1, 0))
    bias = _bias(op, 0, 1, 2)
    if op.rank(0) == 2 or not keep:
        op.out(op.add("Gemm", x, weights, bias))
        return
    made = op.add("MatMul", x, weights)
    op.out(op.add("Add", made, bias) if bias else made)


def _weights(op: Op, position: int = 1) -> None:
    """Refuse types that the kernels do not put together as the file says."""
    weights, kinds = op.tensor(position), {op.tensor(position).dtype}
    if is_steps(weights) and not is_steps(op.result()) and not kinds <= {"int4", "int8"}:
        raise op.refuse(f"its weights are steps of {weights.dtype} beside floats, which kernels take for int8")
    data = op.tensor(2 if op.code.endswith("TRANSPOSE") or op.code == "TRANSPOSE_CONV" else 0)
    points = weights.quantization.zero_point if weights.quantization else np.zeros(1)
    if is_steps(data) and weights.dtype == "int8" and op.code in _ZERO_POINT_0 and points.any():
        raise op.refuse("its weights have a zero point, which the kernel does not read")
    if is_steps(data) and op.result().dtype != data.dtype:
        raise op.refuse(f"from steps of {data.dtype} to {op.result().dtype}")


def batch_matmul(op: Op) -> None:
    _weights(op)
    inputs = [_turned(op, 0, turn=op.flag("adj_x")), _turned(op, 1, turn=op.flag("adj_y"))]
    op.out(op.add("MatMul", *inputs))


def _turned(op: Op, position: int, *, turn: bool) -> str:
    rank = op.rank(position)
    return op.real(position, (*range(rank - 2), rank - 1, rank - 2) if turn and rank > 1 else ())


def _bias(op: Op, x: int, weights: int, bias: int) -> str:
    """The bias in real numbers, "" where there is none. Kernels take its scale for input x weight, whatever it says."""
    if not op.has(bias):
        return ""
    if op.tensor(bias).dtype not in _WHOLE:
        return op.real(bias)
    scales = [op.tensor(one).quantization for one in (x, weights)]
    if scales[0] is None or scales[1] is None or op.constant(bias) is None:
        raise op.refuse("its bias is of whole numbers, but has no scale")
    scale = scales[0].scale.astype(np.float64) * scales[1].scale.astype(np.float64)
    return op.scope.bias(op.index(bias), scale.astype(np.float32))


def max_pool(op: Op) -> None:
    op.out(op.add("MaxPool", op.real(0, NCHW), **_pool(op)), NCHW)


def average_pool(op: Op) -> None:
    """Elements outside of the picture do not count."""
    windows = _pool(op)
    made = op.add("AveragePool", op.real(0, NCHW), **windows)
    op.out(_ties_away(op, made) if op.in_steps else made, NCHW)


def _ties_away(op: Op, mean: str) -> str:
    """Move means of steps that lie halfway between two away from step 0, as TFLite rounds them; ONNX rounds to even.

    Means of n steps are apart by 1 / n, so that a quarter of that moves no other one across the middle. Source: LiteRT,
    reference/integer_ops/pooling.h (the sum plus or minus half of the count, cut).
    """
    quantization = op.tensor(0).quantization
    assert quantization is not None
    scale, point = float(quantization.scale[0]), int(quantization.zero_point[0])
    count = op.option("filter_height", 1) * op.option("filter_width", 1)
    side = op.add("Sign", op.add("Add", mean, op.number(scale * point)))
    return op.add("Add", mean, op.add("Mul", side, op.number(0.25 * scale / count)))


def l2_pool(op: Op) -> None:
    x = op.real(0, NCHW)
    mean = op.add("AveragePool", op.add("Mul", x, x), **_pool(op))
    op.out(op.add("Sqrt", mean), NCHW)


def _pool(op: Op) -> dict[str, Attribute]:
    op.rank(0, 4)
    kernel = (op.option("filter_height", 0), op.option("filter_width", 0))
    found = _windows(op, kernel, op.sizes(0)[1:3])
    del found["dilations"]
    return found


def _along(op: Op, option: str, count: int, end: str = "") -> list[int]:
    found = [op.option(f"{option}{axis}{end}", 1) for axis in "dhw"[-count:]]
    if min(found) < 1:
        raise op.refuse(f"{option}{end} of {found}")
    return found


def _windows(op: Op, kernel: Sequence[int], given: Sequence[int | None]) -> dict[str, Attribute]:
    """Where windows lie. Open sizes leave the padding to the runtime, which computes it as TFLite does."""
    count = len(kernel)
    if min(kernel) < 1:
        raise op.refuse(f"windows of {list(kernel)}")
    strides, dilations = _along(op, "stride_", count), _along(op, "dilation_", count, "_factor")
    found: dict[str, Attribute] = {"kernel_shape": list(kernel), "strides": strides, "dilations": dilations}
    if op.option("padding", "SAME") == "VALID":
        return found
    known = [size for size in given if size is not None]
    if len(known) < count:
        return {**found, "auto_pad": "SAME_UPPER"}
    totals = [
        max((math.ceil(size / stride) - 1) * stride + (length - 1) * dilation + 1 - size, 0)
        for size, stride, length, dilation in zip(known, strides, kernel, dilations, strict=True)
    ]
    found["pads"] = [*(total // 2 for total in totals), *(total - total // 2 for total in totals)]
    return found


CONV: Mapping[str, Rule] = {
    "AVERAGE_POOL_2D": average_pool,
    "BATCH_MATMUL": batch_matmul,
    "CONV_2D": conv_2d,
    "CONV_3D": conv_3d,
    "CONV_3D_TRANSPOSE": conv_3d_transpose,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "FULLY_CONNECTED": fully_connected,
    "L2_POOL_2D": l2_pool,
    "MAX_POOL_2D": max_pool,
    "TRANSPOSE_CONV": transpose_conv,
}
