"""Random operators on images and series, as real nets have them."""

import math
from collections.abc import Callable

import numpy as np

from tests.converters.tflite.random_graph import LENGTH, Net, Shape

Kind = tuple[Callable[[Shape], bool], Callable[[Net, str, Shape], None]]


def planes(shape: Shape) -> bool:
    """Images (batch, channels, height, width) or series (batch, channels, time)."""
    return len(shape) in {3, 4} and shape[1] != LENGTH


def images(shape: Shape) -> bool:
    return len(shape) == 4 and shape[1] != LENGTH


def _window(net: Net, shape: Shape, *, kernels: tuple[int, ...]) -> tuple[dict[str, object], list[int]] | None:
    """Attributes of a sliding window, and the sides of what it gives; None where it does not fit."""
    sides = shape[2:]
    count = len(sides)
    kernel = [net.pick(kernels)] * count if net.chance(0.7) else [net.pick(kernels) for _ in sides]
    stride = [net.pick([1, 1, 2])] * count if net.chance(0.8) else [net.pick([1, 2]) for _ in sides]
    most = min(kernel) - 1
    pads = [min(net.pick([0, 1]), most)] * 2 * count
    if net.chance(0.3):
        pads = [int(net.rng.integers(0, most + 1)) for _ in range(2 * count)]
    room = [side + pads[at] + pads[at + count] - kernel[at] for at, side in enumerate(sides)]
    if min(room) < 0 or LENGTH in sides:
        return None
    options = {"kernel_shape": kernel, "strides": stride, "pads": pads}
    return options, [one // step + 1 for one, step in zip(room, stride, strict=True)]


def conv(net: Net, x: str, shape: Shape) -> None:
    fitting = _window(net, shape, kernels=(1, 3, 3, 5))
    if fitting is None:
        return
    options, sides = fitting
    out, channels, kernel = net.pick([4, 6, 8]), shape[1], options["kernel_shape"]
    group = next((one for one in (2, 4) if channels % one == 0 and out % one == 0), 1) if net.chance(0.25) else 1
    window = tuple(int(size) for size in kernel)  # type: ignore[attr-defined]
    weight = net.weight(out, channels // group, *window, fan=channels // group * math.prod(window))
    bias = [net.weight(out)] if net.chance(0.8) else []
    net.emit("Conv", [x, weight, *bias], (shape[0], out, *sides), group=group, **options)


def dilated(net: Net, x: str, shape: Shape) -> None:
    count, by, group = len(shape) - 2, net.pick([2, 3]), shape[1] if net.chance(0.5) else 1
    if min(shape[2:]) < 2 * by + 1 or LENGTH in shape:
        return
    out = shape[1] if group > 1 else net.pick([4, 6])
    weight = net.weight(out, shape[1] // group, *[3] * count, fan=3**count * shape[1] // group)
    pads, room = ([by] * 2 * count, 0) if net.chance(0.5) else ([0] * 2 * count, 2 * by)
    sides = [side - room for side in shape[2:]]
    options = {"kernel_shape": [3] * count, "dilations": [by] * count, "pads": pads, "group": group}
    net.emit("Conv", [x, weight, net.weight(out)], (shape[0], out, *sides), **options)


def same(net: Net, x: str, shape: Shape) -> None:
    """Padding as TensorFlow's converters write it."""
    if LENGTH in shape:
        return
    count, stride, channels = len(shape) - 2, net.pick([1, 2]), shape[1]
    sides = [-(-side // stride) for side in shape[2:]]
    options = {"auto_pad": net.choose(["SAME_UPPER", "SAME_LOWER"]), "strides": [stride] * count}
    weight = net.weight(6, channels, *[3] * count, fan=channels * 3**count)
    net.emit("Conv", [x, weight, net.weight(6)], (shape[0], 6, *sides), kernel_shape=[3] * count, **options)


def depthwise(net: Net, x: str, shape: Shape) -> None:
    fitting = _window(net, shape, kernels=(3, 3, 5))
    if fitting is None:
        return
    options, sides = fitting
    channels, window = shape[1], [int(size) for size in options["kernel_shape"]]  # type: ignore[attr-defined]
    out = channels * net.pick([1, 1, 2])
    weight = net.weight(out, 1, *window, fan=math.prod(window))
    net.emit("Conv", [x, weight], (shape[0], out, *sides), group=channels, **options)


def deconv(net: Net, x: str, shape: Shape) -> None:
    count, kernel, stride = len(shape) - 2, net.pick([2, 3, 4]), net.pick([1, 2])
    if max(shape[2:]) > 10 or LENGTH in shape:
        return
    out, channels, pad = net.pick([3, 4]), shape[1], min(net.pick([0, 1]), kernel - 1)
    more = net.pick([0, 0, stride - 1])
    sides = [(side - 1) * stride + kernel - 2 * pad + more for side in shape[2:]]
    if min(sides) < 1:
        return
    options = {"strides": [stride] * count, "pads": [pad] * 2 * count, "output_padding": [more] * count}
    weight = net.weight(channels, out, *[kernel] * count, fan=channels * kernel**count)
    bias = [net.weight(out)] if net.chance(0.7) else []
    net.emit("ConvTranspose", [x, weight, *bias], (shape[0], out, *sides), kernel_shape=[kernel] * count, **options)


def pool(net: Net, x: str, shape: Shape) -> None:
    fitting = _window(net, shape, kernels=(2, 2, 3))
    if fitting is None:
        return
    options, sides = fitting
    if net.chance(0.5):
        net.emit("MaxPool", [x], (*shape[:2], *sides), **options)
    else:
        net.emit("AveragePool", [x], (*shape[:2], *sides), count_include_pad=net.pick([0, 1]), **options)


def everywhere(net: Net, x: str, shape: Shape) -> None:
    op = net.choose(["GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool"])
    net.emit(op, [x], (*shape[:2], *[1] * (len(shape) - 2)))


def grow(net: Net, x: str, shape: Shape) -> None:
    if max(shape[2:]) > 10:
        return
    grown = (*shape[:2], 2 * shape[2], 2 * shape[3])
    mode = net.choose(["nearest", "linear"])
    options: dict[str, object] = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    if mode == "nearest":
        options["nearest_mode"] = "round_prefer_floor"
        if net.chance(0.5):
            options |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    elif net.chance(0.4):
        options["coordinate_transformation_mode"] = net.choose(["align_corners", "asymmetric"])
    net.emit("Resize", [x, "", net.floats(1, 1, 2, 2)], grown, **options)


def depth_to_space(net: Net, x: str, shape: Shape) -> None:
    if shape[1] % 4 == 0:
        sides = (2 * shape[2], 2 * shape[3])
        net.emit("DepthToSpace", [x], (shape[0], shape[1] // 4, *sides), blocksize=2, mode=net.choose(["DCR", "CRD"]))


def space_to_depth(net: Net, x: str, shape: Shape) -> None:
    if shape[2] % 2 == 0 and shape[3] % 2 == 0:
        net.emit("SpaceToDepth", [x], (shape[0], 4 * shape[1], shape[2] // 2, shape[3] // 2), blocksize=2)


def shuffle(net: Net, x: str, shape: Shape) -> None:
    if shape[1] % 2 == 0:
        wide = (shape[0], 2, shape[1] // 2, *shape[2:])
        parted = net.reshape(x, wide)
        turned = net.emit("Transpose", [parted], (wide[0], wide[2], 2, *wide[3:]), perm=[0, 2, 1, 3, 4])
        net.reshape(turned, shape)


def pixels(net: Net, x: str, shape: Shape) -> None:
    """Patches of an image as a batch of their own axes, through six axes, as Swin's windows."""
    if shape[2] % 2 == 0 and shape[3] % 2 == 0:
        batch, channels, height, width = shape
        parted = net.reshape(x, (batch, channels, height // 2, 2, width // 2, 2))
        order = [0, 2, 4, 3, 5, 1]
        turned = net.emit("Transpose", [parted], (batch, height // 2, width // 2, 2, 2, channels), perm=order)
        net.reshape(turned, (batch, height * width // 4, 4 * channels))


def squeeze_excite(net: Net, x: str, shape: Shape) -> None:
    small = (*shape[:2], *[1] * (len(shape) - 2))
    mean = net.emit("GlobalAveragePool", [x], small)
    weight = net.weight(shape[1], shape[1], *small[2:], fan=shape[1])
    gate = net.emit("Conv", [mean, weight], small, kernel_shape=[1] * (len(shape) - 2))
    gate = net.emit(net.choose(["Sigmoid", "HardSigmoid"]), [gate], small)
    net.emit("Mul", [x, gate] if net.chance(0.5) else [gate, x], shape)


def residual(net: Net, x: str, shape: Shape) -> None:
    """Two paths that join: scales of their own, and an activation behind the sum."""
    window = {"kernel_shape": [3] * (len(shape) - 2), "pads": [1] * 2 * (len(shape) - 2)}
    weight = net.weight(shape[1], shape[1], *[3] * (len(shape) - 2), fan=shape[1] * 9)
    path = net.emit("Relu", [net.emit("Conv", [x, weight, net.weight(shape[1])], shape, **window)], shape)
    total = net.emit("Add", [path, x] if net.chance(0.5) else [x, path], shape)
    if net.chance(0.6):
        net.emit("Relu", [total], shape)


def dense_block(net: Net, x: str, shape: Shape) -> None:
    """Channels joined with what was made of them; scales differ."""
    weight = net.weight(4, shape[1], *[1] * (len(shape) - 2), fan=shape[1])
    made = net.emit("Conv", [x, weight], (shape[0], 4, *shape[2:]), kernel_shape=[1] * (len(shape) - 2))
    gate = net.emit("Sigmoid", [made], net.shapes[made])
    net.emit("Concat", [x, gate, made], (shape[0], shape[1] + 8, *shape[2:]), axis=1)


def batch_norm(net: Net, x: str, shape: Shape) -> None:
    size = shape[1]
    weights = [net.factors(size), net.weight(size), net.weight(size), net.factors(size)]
    net.emit("BatchNormalization", [x, *weights], shape, epsilon=1e-3)


def instance_norm(net: Net, x: str, shape: Shape) -> None:
    if math.prod(shape[2:]) >= 4:
        weights = [net.factors(shape[1]), net.weight(shape[1])]
        net.emit("InstanceNormalization", [x, *weights], shape, epsilon=1e-1)


def group_norm(net: Net, x: str, shape: Shape) -> None:
    """As exporters write it: instance norm over two groups of channels."""
    inner = shape[1] // 2 * math.prod(shape[2:])
    if shape[1] % 2 == 0 and inner >= 4 and LENGTH not in shape:
        parted = net.emit("Reshape", [x, net.numbers(0, 2, -1)], (shape[0], 2, inner))
        normed = net.emit("InstanceNormalization", [parted, net.factors(2), net.weight(2)], (shape[0], 2, inner))
        back = net.reshape(normed, shape)
        ones = [1] * (len(shape) - 2)
        net.emit("Mul", [back, net.factors(shape[1], *ones)], shape)


def prelu(net: Net, x: str, shape: Shape) -> None:
    sizes = [shape[1], *[1] * (len(shape) - 2)]
    net.emit("PRelu", [x, net.array(np.abs(net.rng.standard_normal(sizes) / 4).astype(np.float32))], shape)


def tokens(net: Net, x: str, shape: Shape) -> None:
    flat = net.emit("Reshape", [x, net.numbers(0, shape[1], -1)], (*shape[:2], shape[2] * shape[3]))
    net.emit("Transpose", [flat], (shape[0], shape[2] * shape[3], shape[1]), perm=[0, 2, 1])


def upright(net: Net, x: str, shape: Shape) -> None:
    """Rows as images of height 1, and the other way round."""
    if len(shape) == 3:
        net.emit("Unsqueeze", [x, net.numbers(2)], (*shape[:2], 1, shape[2]))
    elif shape[2] == 1:
        net.emit("Squeeze", [x, net.numbers(2)], (*shape[:2], shape[3]))


KINDS: list[Kind] = [
    *[(planes, kind) for kind in (conv, conv, depthwise, dilated, same, deconv, pool, everywhere)],
    *[(planes, kind) for kind in (squeeze_excite, residual, dense_block, batch_norm, instance_norm)],
    *[(planes, kind) for kind in (group_norm, prelu, upright)],
    *[(images, kind) for kind in (grow, depth_to_space, space_to_depth, shuffle, pixels, tokens)],
]
"""What each fits, and what it does."""
