"""Convolutions. Weights stay as they are, (out, in / group, *kernel), and say in which order the kernel reads them."""

from converters.write.tflite.lowering import Lowering
from converters.write.tflite.ops.channels import concatenated, kernel_weights, parts, zero_bias
from converters.write.tflite.ops.windows import Windows, dilations_of, pad, padding_of, pads_of, strides_of, windows_of
from converters.write.tflite.program import Fixed, OptionOrAxis, Value, nhwc
from converters.write.tflite.table import lowers

MOST_PARTS = 64
"""Groups up to which a convolution that knows no groups is written as one convolution each."""


@lowers("Conv", int8=True, hybrid=True)
def conv(low: Lowering) -> None:
    """CONV_2D, DEPTHWISE_CONV_2D or CONV_3D; one axis is read as two."""
    x, weights, out = low.input(0), low.input(1), low.output()
    if x.rank not in {3, 4, 5}:
        low.refuse(f"a convolution over {x.rank - 2} axes")
    kernel = [size for size in weights.shape[2:] if isinstance(size, int)]
    if len(kernel) != x.rank - 2:
        low.refuse("the sizes of its weights are not known")
    windows = windows_of(low, x.shape[2:], kernel, out.shape[2:])
    bias = low.optional(2) or zero_bias(low, x, weights)
    if x.rank == 5:
        _conv_3d(low, x, weights, bias, windows)
    else:
        _conv_2d(low, x, weights, bias, windows)


def _conv_2d(low: Lowering, x: Value, weights: Value, bias: Value, windows: Windows) -> None:
    out = low.output()
    if x.rank == 3:
        flat = windows[0]._replace(size=1, kernel=1, stride=1, dilation=1, begin=0, end=0, out=1, tail=0, same=False)
        windows = [flat, *windows]
        x, weights = tall(low, x), tall(low, weights)
    weights = kernel_weights(low, x, weights, hybrid=False)
    padding = padding_of(windows)
    if padding is None:
        x, padding = pad(low, x, pads_of(low, windows)), "VALID"
    options: dict[str, OptionOrAxis] = {"padding": padding, **strides_of(windows), **dilations_of(windows)}
    made = out if out.rank == 4 else low.like(out, (*out.shape[:2], 1, *out.shape[2:]))
    group = low.integer("group", 1)
    channels = x.shape[1]
    if group > 1 and channels == group and weights.shape[1] == 1:
        _depthwise(low, [x, weights, bias], made, options, group)
    else:
        ties = (_INPUT_CHANNELS, _OUTPUT_CHANNELS) if group == 1 else ()
        rule = Fixed({0: nhwc(4), 1: (0, 2, 3, 1)}, {0: nhwc(4)}, ties)
        low.emit("CONV_2D", [x, weights, bias], [made], options, rule=rule)
    if made is not out:
        low.reshape(made, out.shape, out)


_INPUT_CHANNELS = ((0, 1), (1, 1))
_OUTPUT_CHANNELS = ((1, 0), (2, 0), (-1, 1))
_CHANNELS = ((0, 1), (1, 0), (2, 0), (-1, 1))


def _depthwise(low: Lowering, inputs: list[Value], out: Value, options: dict[str, OptionOrAxis], channels: int) -> None:
    """The kernel wants weights as (1, height, width, out)."""
    count = inputs[1].shape[0]
    if not isinstance(count, int):
        low.refuse("the number of its weights is not known")
    rule = Fixed({0: nhwc(4), 1: (1, 2, 3, 0)}, {0: nhwc(4)}, (_CHANNELS,) if count == channels else ())
    low.emit("DEPTHWISE_CONV_2D", inputs, [out], {**options, "depth_multiplier": count // channels}, rule=rule)


def tall(low: Lowering, value: Value) -> Value:
    """(a, b, width) as (a, b, 1, width)."""
    shape = (*value.shape[:2], 1, *value.shape[2:])
    if not value.constant:
        return low.reshape(value, shape)
    array = value.array()
    return Value(value.name, shape, value.dtype, value.quantization, array.reshape([int(size) for size in shape]))


def _conv_3d(low: Lowering, x: Value, weights: Value, bias: Value, windows: Windows) -> None:
    """CONV_3D has no groups, nor int8."""
    if x.quantization is not None:
        low.refuse("CONV_3D takes float alone")
    padding = padding_of(windows)
    if padding is None:
        x, padding = pad(low, x, pads_of(low, windows)), "VALID"
    options: dict[str, OptionOrAxis] = {"padding": padding, **strides_of(windows), **dilations_of(windows)}
    rule = Fixed({0: nhwc(5), 1: (2, 3, 4, 1, 0)}, {0: nhwc(5)}, (_INPUT_CHANNELS, _OUTPUT_CHANNELS))
    group, out = low.integer("group", 1), low.output()
    if group == 1:
        low.emit("CONV_3D", [x, weights, bias], [out], options, rule=rule)
        return
    if group > MOST_PARTS:
        low.refuse(f"a convolution over three axes in {group} groups")
    outs = [low.like(out, (out.shape[0], bias_size(low, bias) // group, *out.shape[2:])) for _ in range(group)]
    columns = [parts(low, value, axis, group) for value, axis in ((x, 1), (weights, 0), (bias, 0))]
    for *inputs, made in zip(*columns, outs, strict=True):
        low.emit("CONV_3D", inputs, [made], options, rule=rule)
    concatenated(low, outs, 1, out)


def bias_size(low: Lowering, bias: Value) -> int:
    """The number of output channels."""
    size = bias.shape[0]
    return size if isinstance(size, int) else low.refuse("the number of its channels is not known")
