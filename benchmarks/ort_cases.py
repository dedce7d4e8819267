"""What profile_ort.py measures: blocks of each kind of operator, in sizes of real nets."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from chains import ATTENTIONS, GEMMS, GROUPED, SIZES, Case, attended, linear_layers, one_way, there_and_back
from ort_net import SCALE, Net

Block = Callable[[Net, str], str]
OrtCase = Case[Net, str]


def conv_case(kind: str, cin: int, cout: int, side: int, *, k: int = 1, group: int = 1) -> OrtCase:
    """There and back again, so that the chain's shape stays; both convolutions are of the kind."""

    def block(net: Net, x: str) -> str:
        return net.conv(net.conv(x, cin, cout, k=k, group=group), cout, cin, k=k, group=group)

    return Case(kind, (1, cin, side, side), block, there_and_back(cin, cout, side, k, group))


def stem_case(cin: int, cout: int, side: int, *, k: int = 3, stride: int = 1) -> OrtCase:
    """A convolution of few input channels has no way back; what its mean adds is small."""

    def block(net: Net, x: str) -> str:
        made = net.conv(x, cin, cout, k=k, stride=stride)
        return net.activation(net.node("GlobalAveragePool", [made]), SCALE, 0)

    return Case("Conv.stem", (1, cin, side, side), block, one_way(cin, cout, side, k, stride), beside=True)


def between(kind: str, channels: int, side: int, op: Block, *, reads: float = 1, writes: float = 1) -> OrtCase:
    """An operator between pointwise convolutions."""
    elements = channels * side * side

    def base(net: Net, x: str) -> str:
        return net.conv(x, channels, channels, relu=False)

    def block(net: Net, x: str) -> str:
        return op(net, base(net, x))

    shape = (1, channels, side, side)
    return Case(kind, shape, block, (0, int(elements * reads), int(elements * writes)), base)


def behind(kind: str, channels: int, side: int, op: Block, less: Block) -> OrtCase:
    """An operator that cannot stand alone in a chain: what comes with it is taken off too."""
    return replace(between(kind, channels, side, op), base=between(kind, channels, side, less).block)


def matmul_case(kind: str, rows: int, width: int, inner: int) -> OrtCase:
    def linear(net: Net, x: str, i: int, o: int) -> str:
        inputs = [x, net.weight((i, o), 1)]
        if kind == "Gemm":
            return net.activation(net.node("Gemm", [*inputs, net.bias(o)]))
        return net.activation(net.node("Add", [net.node("MatMul", inputs), net.bias(o)]))

    def block(net: Net, x: str) -> str:
        return linear(net, linear(net, x, width, inner), inner, width)

    shape = (rows, width) if kind == "Gemm" else (1, rows, width)
    return Case(kind, shape, block, linear_layers(rows, width, inner))


def attention_case(heads: int, rows: int, width: int) -> OrtCase:
    """x @ x^T, then that @ x."""

    def block(net: Net, x: str) -> str:
        scored = net.activation(net.node("MatMul", [x, net.node("Transpose", [x], perm=[0, 1, 3, 2])]))
        return net.activation(net.node("MatMul", [scored, x]))

    return Case("MatMul.dynamic", (1, heads, rows, width), block, attended(heads, rows, width))


def hard_swish(net: Net, x: str) -> str:
    """In int8 by the rewriting that plans use: the gate is the clipped steps, read with another scale."""
    if not net.int8:
        return net.node("HardSwish", [x])
    steps = net.nodes[-1].input[0]
    clipped = net.node("Clip", [steps, net.constant(np.uint8(68)), net.constant(np.uint8(188))])
    ends = [net.constant(np.float32(SCALE / 6)), net.constant(np.uint8(68))]
    return net.activation(net.node("Mul", [x, net.node("DequantizeLinear", [clipped, *ends])]))


def hard_sigmoid(net: Net, x: str) -> str:
    if not net.int8:
        return net.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5)
    clipped = net.node("Clip", [net.nodes[-1].input[0], net.constant(np.uint8(68)), net.constant(np.uint8(188))])
    return net.node("DequantizeLinear", [clipped, net.constant(np.float32(SCALE)), net.constant(np.uint8(128))])


def average(net: Net, x: str) -> str:
    """In int8 a depthwise convolution, as plans write it."""
    if not net.int8:
        return net.node("AveragePool", [x], **POOL, count_include_pad=1)
    channels = net.channels
    inputs = [x, net.weight((channels, 1, 3, 3), 0), net.bias(channels)]
    return net.activation(net.node("Conv", inputs, **POOL, group=channels))


def _plain(operator: str, **attributes: object) -> Block:
    return lambda net, x: net.activation(net.node(operator, [x], **attributes))


def _twice(operator: str) -> Block:
    return lambda net, x: net.activation(net.node(operator, [x, x]))


def _factors(net: Net, x: str) -> str:
    """One factor a channel, the same for all blocks: squeeze and excitation's last step."""
    if not net.shared:
        net.shared = net.activation(net.node("GlobalAveragePool", ["x"]))
    return net.activation(net.node("Mul", [x, net.shared]))


def _mean_factors(net: Net, x: str) -> str:
    """The same, with the channels' means as factors, so that the chain goes on."""
    factor = net.activation(net.node("GlobalAveragePool", [x]))
    return net.activation(net.node("Mul", [x, factor]))


def _concat(net: Net, x: str) -> str:
    """Joined with itself; what takes the half of it back is counted too."""
    joined = net.activation(net.node("Concat", [x, x], axis=1))
    ends = [net.constant(np.array([number])) for number in (0, net.channels, 1)]
    return net.activation(net.node("Slice", [joined, *ends]))


def _turn(net: Net, x: str) -> str:
    return net.activation(net.node("Transpose", [x], perm=[0, 1, 3, 2]))


def _grow(net: Net, x: str) -> str:
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    grown = net.activation(net.node("Resize", [x, "", scales], mode="nearest"))
    return net.activation(net.node("MaxPool", [grown], kernel_shape=[2, 2], strides=[2, 2]))


def relu(net: Net, x: str) -> str:
    """In int8 a clip of the steps."""
    if not net.int8:
        return net.node("Relu", [x])
    ends = [net.constant(np.uint8(128)), net.constant(np.uint8(255))]
    clipped = net.node("Clip", [net.nodes[-1].input[0], *ends])
    return net.node("DequantizeLinear", [clipped, net.constant(np.float32(SCALE)), net.constant(np.uint8(128))])


POOL = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def moving_cases(channels: int, side: int) -> Iterator[OrtCase]:
    """Operators whose cost is bytes, between convolutions."""
    plain: dict[str, Block] = {
        "AveragePool": average,
        "HardSigmoid": hard_sigmoid,
        "HardSwish": hard_swish,
        "LeakyRelu": _plain("LeakyRelu"),
        "MaxPool": _plain("MaxPool", **POOL),
        "Mul.channel": _factors,
        "Resize": _grow,
        "Sigmoid": _plain("Sigmoid"),
        "Softmax": _plain("Softmax", axis=-1),
        "Tanh": _plain("Tanh"),
        "Transpose": _turn,
    }
    for kind, op in plain.items():
        yield between(kind, channels, side, op)
    elements = channels * side * side
    yield Case("MaxPool.border", (1, channels, side, side), _plain("MaxPool", **POOL), (0, elements, elements))
    yield between("Add", channels, side, _twice("Add"), reads=2)
    yield between("Mul", channels, side, _twice("Mul"), reads=2)
    yield between("Concat", channels, side, _concat, reads=2, writes=2)
    yield behind("GlobalAveragePool", channels, side, _mean_factors, _factors)
    yield behind("Relu", channels, side, lambda net, x: relu(net, _twice("Add")(net, x)), _twice("Add"))


def ragged_cases() -> Iterator[OrtCase]:
    """Channels that are no multiple of 16."""
    for cin, cout, side in (
        *((8, 8, 56), (8, 24, 28), (8, 32, 28), (24, 72, 28), (24, 88, 28), (40, 120, 14), (40, 240, 14), (72, 24, 1)),
        *((200, 32, 14), (24, 96, 14), (8, 16, 112), (12, 72, 28)),
    ):
        yield conv_case("Conv.pointwise.ragged", cin, cout, side)
    for channels, side, k in ((8, 28, 3), (24, 14, 3), (40, 14, 3), (24, 28, 3), (20, 28, 5), (72, 14, 3)):
        yield conv_case("Conv.dense.ragged", channels, channels, side, k=k)
    for channels, side, k in (
        *((72, 28, 5), (24, 56, 3), (40, 28, 3), (88, 14, 5), (200, 14, 5), (120, 14, 5), (8, 56, 3), (72, 56, 3)),
    ):
        yield conv_case("Conv.depthwise.ragged", channels, channels, side, k=k, group=channels)


def convolutions() -> Iterator[OrtCase]:
    """Of all kinds."""
    for cin, cout, side in (
        *((16, 96, 56), (24, 144, 56), (32, 192, 28), (64, 384, 14), (96, 576, 14), (160, 960, 7), (320, 1280, 7)),
        *((16, 16, 112), (64, 64, 28), (80, 32, 1), (240, 64, 1), (960, 240, 1), (96, 384, 56), (48, 192, 28)),
    ):
        yield conv_case("Conv.pointwise", cin, cout, side)
    for channels, side, k in (
        *((64, 56, 3), (128, 28, 3), (256, 14, 3), (512, 7, 3), (16, 112, 3), (32, 28, 3), (32, 28, 5), (16, 56, 7)),
        *((16, 28, 3), (32, 14, 3), (64, 7, 3), (64, 14, 3)),
    ):
        yield conv_case("Conv.dense", channels, channels, side, k=k)
    yield from ragged_cases()
    for cin, cout, side, k in (
        *((1, 16, 28, 3), (1, 32, 28, 3), (3, 16, 32, 3), (3, 32, 112, 3), (3, 64, 112, 7), (1, 64, 49, 5)),
        (3, 16, 96, 3),
    ):
        yield stem_case(cin, cout, side, k=k)
    for cout, k, stride in ((32, 3, 2), (16, 3, 2), (64, 7, 2), (96, 4, 4), (192, 16, 16)):
        yield stem_case(3, cout, 224, k=k, stride=stride)
    for channels, side, k in (
        *((32, 112, 3), (96, 56, 3), (144, 28, 3), (192, 28, 3), (384, 14, 3), (576, 14, 3), (960, 7, 3)),
        *((240, 14, 5), (576, 7, 5), (96, 56, 7), (384, 14, 7), (768, 7, 7), (16, 56, 3)),
    ):
        yield conv_case("Conv.depthwise", channels, channels, side, k=k, group=channels)
    for channels, side, group in GROUPED:
        yield conv_case("Conv.grouped", channels, channels, side, k=3, group=group)


def cases() -> Iterator[OrtCase]:
    """All of them."""
    yield from convolutions()
    for rows, width, inner in (
        *((197, 192, 768), (197, 192, 192), (49, 384, 1536), (32, 128, 512), (64, 64, 64), (784, 96, 384)),
    ):
        yield matmul_case("MatMul", rows, width, inner)
    for rows, width, inner in GEMMS:
        yield matmul_case("Gemm", rows, width, inner)
    for heads, rows, width in ATTENTIONS:
        yield attention_case(heads, rows, width)
    for channels, side in SIZES:
        yield from moving_cases(channels, side)
