"""What profile_tflite.py measures: blocks of each kind of operator, in sizes of real nets.

An operator that a delegate may refuse stands between ones that it takes, so that what it costs to leave and to
come back is counted.
"""

from collections.abc import Callable, Iterator
from functools import partial

from chains import ATTENTIONS, GEMMS, GROUPED, SIZES, Case, attended, linear_layers, one_way, there_and_back
from tflite_net import PLAIN, UNIT, Net, Value

Block = Callable[[Net, Value], Value]
LiteCase = Case[Net, Value]


def conv_case(kind: str, cin: int, cout: int, side: int, *, k: int = 1, group: int = 1) -> LiteCase:
    """Two convolutions, so that the chain's shape stays."""

    def block(net: Net, x: Value) -> Value:
        return net.conv(net.conv(x, cout, k=k, group=group), cin, k=k, group=group)

    return Case(kind, (1, side, side, cin), block, there_and_back(cin, cout, side, k, group))


def stem(cin: int, cout: int, side: int, *, k: int, stride: int) -> LiteCase:
    block = partial(_conv, cout=cout, k=k, stride=stride)
    return Case("Conv.stem", (1, side, side, cin), block, one_way(cin, cout, side, k, stride), beside=True)


def halving(channels: int, side: int, *, k: int) -> LiteCase:
    """A depthwise convolution of stride 2 reads more for each product than others."""
    written = channels * (side // 2) ** 2
    block = partial(_conv, cout=channels, k=k, stride=2, group=channels)
    work = (written * k * k, channels * side * side, written)
    return Case("Conv.depthwise", (1, side, side, channels), block, work, beside=True)


def _conv(net: Net, x: Value, *, cout: int, k: int, stride: int, group: int = 1) -> Value:
    return net.conv(x, cout, k=k, stride=stride, group=group)


def transposed(cin: int, cout: int, side: int, *, k: int, stride: int) -> LiteCase:
    area = side * side
    work = (cout * cin * k * k * area, cin * area, cout * area * stride * stride)
    return Case(
        "ConvTranspose",
        (1, side, side, cin),
        lambda net, x: net.transpose_conv(x, cout, k=k, stride=stride),
        work,
        beside=True,
    )


def linear(kind: str, rows: int, width: int, inner: int) -> LiteCase:
    shape = (rows, width) if kind == "Gemm" else (1, rows, width)
    return Case(kind, shape, lambda net, x: net.linear(net.linear(x, inner), width), linear_layers(rows, width, inner))


def attention(heads: int, rows: int, width: int) -> LiteCase:
    """x @ x^T, then that @ x."""

    def block(net: Net, x: Value) -> Value:
        scored = net.op("BATCH_MATMUL", [x, x], (1, heads, rows, rows), adj_y=True)
        return net.op("BATCH_MATMUL", [scored, x], x.shape)

    return Case("MatMul.dynamic", (1, heads, rows, width), block, attended(heads, rows, width))


def softmax(heads: int, rows: int) -> LiteCase:
    elements = heads * rows * rows
    shape = (1, heads, rows, rows)
    block = behind_product(lambda net, x: net.op("SOFTMAX", [x], scale=UNIT, beta=1.0))
    return Case("Softmax", shape, block, (0, elements, elements), product)


def product(net: Net, x: Value) -> Value:
    """An operator that every delegate takes, and that costs little."""
    return net.op("MUL", [x, net.number(1.0)])


def behind_product(op: Block) -> Block:
    return lambda net, x: op(net, product(net, x))


def relu_native(net: Net, x: Value) -> Value:
    return net.op("RELU", [x])


def relu_product(net: Net, x: Value) -> Value:
    if not net.int8:
        return relu_native(net, x)
    return net.op("MUL", [x, net.number(1.0)], fused_activation_function="RELU")


def _gate(net: Net, x: Value, scale: tuple[float, int]) -> Value:
    total = net.op("ADD", [x, net.number(3.0)], scale=(6 / 255, -128), fused_activation_function="RELU6")
    return net.op("MUL", [total, net.number(1 / 6)], scale=scale)


def hard_sigmoid(net: Net, x: Value) -> Value:
    return _gate(net, x, (1 / 255, -128))


def hard_swish_native(net: Net, x: Value) -> Value:
    return net.op("HARD_SWISH", [x])


def hard_swish_sum(net: Net, x: Value) -> Value:
    if not net.int8:
        return hard_swish_native(net, x)
    return net.op("MUL", [x, _gate(net, x, (1 / 255, -128))])


POOL = {"padding": "SAME", "stride_w": 1, "stride_h": 1, "filter_width": 3, "filter_height": 3}


def average_native(net: Net, x: Value) -> Value:
    return net.op("AVERAGE_POOL_2D", [x], **POOL)


def average_depthwise(net: Net, x: Value) -> Value:
    return net.conv(x, x.shape[-1], k=3, group=x.shape[-1], activation="NONE") if net.int8 else average_native(net, x)


def channel_factors(net: Net, x: Value) -> Value:
    """One factor a channel: squeeze and excitation's last step."""
    if "factors" not in net.shared:
        net.shared["factors"] = net.op("MEAN", [net.x, net.integers(1, 2)], (1, 1, 1, x.shape[-1]), keep_dims=True)
    return net.op("MUL", [x, net.shared["factors"]])


def _reduce(code: str) -> Block:
    return lambda net, x: net.op(code, [x, net.integers(1, 2)], (1, 1, 1, x.shape[-1]), keep_dims=True)


def _plain(code: str, scale: tuple[float, int] = PLAIN, **options: float | str) -> Block:
    return lambda net, x: net.op(code, [x], scale=scale, **options)


def _twice(code: str) -> Block:
    return lambda net, x: net.op(code, [x, x])


def concat(net: Net, x: Value) -> Value:
    return net.op("CONCATENATION", [x, x], (*x.shape[:-1], 2 * x.shape[-1]), axis=-1)


def half(net: Net, x: Value) -> Value:
    """Half of the channels."""
    sizes = (*x.shape[:-1], x.shape[-1] // 2)
    return net.op("SLICE", [x, net.integers(0, 0, 0, 0), net.integers(*sizes)], sizes)


def turn(net: Net, x: Value) -> Value:
    return net.op("TRANSPOSE", [x, net.integers(0, 2, 1, 3)])


def _grow(code: str, *, half_pixel: bool) -> Block:
    def block(net: Net, x: Value) -> Value:
        batch, height, width, channels = x.shape
        shape = (batch, 2 * height, 2 * width, channels)
        return net.op(code, [x, net.integers(2 * height, 2 * width)], shape, half_pixel_centers=half_pixel)

    return block


def shuffle(net: Net, x: Value) -> Value:
    """There and back."""
    batch, height, width, channels = x.shape
    space = net.op("DEPTH_TO_SPACE", [x], (batch, 2 * height, 2 * width, channels // 4), block_size=2)
    return net.op("SPACE_TO_DEPTH", [space], x.shape, block_size=2)


def rows_of_table(count: int, rows: int, width: int) -> LiteCase:
    def block(net: Net, x: Value) -> Value:
        picked = net.op("GATHER", [net.table((rows, width)), net.indices(count)], (count, width), axis=0)
        return net.op("ADD", [x, picked])

    elements = count * width
    return Case("Gather", (count, width), block, (0, elements, elements), lambda net, x: net.op("ADD", [x, x]))


def moving(channels: int, side: int) -> Iterator[LiteCase]:
    """Operators whose cost is bytes."""
    shape, elements = (1, side, side, channels), channels * side * side
    chains: list[tuple[str, str, Block, float]] = [
        ("AveragePool", "", average_native, 1),
        ("AveragePool", "depthwise", average_depthwise, 1),
        ("HardSigmoid", "gate-by-sum", hard_sigmoid, 1),
        ("HardSwish", "", hard_swish_native, 1),
        ("HardSwish", "gate-by-sum", hard_swish_sum, 1),
        ("LeakyRelu", "", _plain("LEAKY_RELU", alpha=0.1), 1),
        ("MaxPool", "", _plain("MAX_POOL_2D", **POOL), 1),
        ("Mul.channel", "", channel_factors, 1),
        ("Relu", "", relu_native, 1),
        ("Relu", "product", relu_product, 1),
        ("Sigmoid", "", _plain("LOGISTIC", UNIT), 1),
        ("Tanh", "", _plain("TANH", (1 / 128, 0)), 1),
        ("Transpose", "", turn, 1),
        ("Add", "", _twice("ADD"), 2),
        ("Mul", "", _twice("MUL"), 2),
        ("Sub", "", _twice("SUB"), 2),
        ("DepthToSpace", "", shuffle, 2),
    ]
    for kind, rewriting, op, reads in chains:
        work = (0, int(elements * reads), elements * (2 if kind == "DepthToSpace" else 1))
        if kind == "Mul.channel":
            work = (0, elements + channels, elements)
        yield Case(kind, shape, behind_product(op), work, product, rewriting=rewriting)
    for kind, op, reads, writes in (
        ("Concat", concat, 2.0, 2.0),
        ("Slice", half, 1.0, 0.5),
        ("GlobalAveragePool", _reduce("MEAN"), 1.0, 1 / side**2),
        ("GlobalMaxPool", _reduce("REDUCE_MAX"), 1.0, 1 / side**2),
        ("Resize", _grow("RESIZE_NEAREST_NEIGHBOR", half_pixel=False), 1.0, 4.0),
        ("Resize.linear", _grow("RESIZE_BILINEAR", half_pixel=True), 1.0, 4.0),
    ):
        work = (0, int(elements * reads), int(elements * writes))
        yield Case(kind, shape, behind_product(op), work, product, beside=True)


def edge(channels: int, side: int) -> LiteCase:
    """Out of int8 and back, around a convolution in float: XNNPACK would compute a simpler operator in int8 at once."""

    def between(net: Net, x: Value) -> Value:
        return net.conv(x, channels, k=3, group=channels)

    def block(net: Net, x: Value) -> Value:
        if not net.int8:
            return pointwise(net, between(net, x))
        real = net.into("DEQUANTIZE", [x], net.value(x.shape, int8=False))
        net.int8 = False
        made = between(net, real)
        net.int8 = True
        return pointwise(net, net.into("QUANTIZE", [made], net.value(x.shape)))

    def pointwise(net: Net, x: Value) -> Value:
        return net.conv(x, channels, activation="NONE")

    elements = channels * side * side
    return Case("edge", (1, side, side, channels), block, (0, elements, elements), pointwise)


def edges() -> Iterator[LiteCase]:
    for channels, side in (*SIZES, (32, 112), (96, 112)):
        yield edge(channels, side)


def convolutions() -> Iterator[LiteCase]:
    """Of all kinds."""
    for cin, cout, side in (
        *((16, 96, 56), (24, 144, 56), (32, 192, 28), (64, 384, 14), (96, 576, 14), (160, 960, 7), (320, 1280, 7)),
        *((80, 32, 1), (240, 64, 1), (960, 240, 1), (96, 384, 56), (24, 88, 28), (40, 240, 14), (8, 24, 28)),
    ):
        yield conv_case("Conv.pointwise", cin, cout, side)
    for channels, side, k in (
        *((64, 56, 3), (128, 28, 3), (256, 14, 3), (512, 7, 3), (16, 56, 3), (32, 28, 3), (32, 28, 5), (16, 28, 7)),
        *((24, 14, 3), (64, 7, 3)),
    ):
        yield conv_case("Conv.dense", channels, channels, side, k=k)
    for cin, cout, side, k, stride in (
        *((1, 16, 28, 3, 1), (3, 16, 32, 3, 1), (1, 64, 49, 5, 1), (3, 32, 224, 3, 2), (3, 64, 224, 7, 2)),
        *((3, 96, 224, 4, 4), (3, 192, 224, 16, 16)),
    ):
        yield stem(cin, cout, side, k=k, stride=stride)
    for channels, side, k in (
        *((32, 112, 3), (96, 56, 3), (144, 28, 3), (384, 14, 3), (960, 7, 3), (40, 28, 3)),
        *((240, 14, 5), (576, 7, 5), (72, 28, 5), (120, 14, 5)),
    ):
        yield conv_case("Conv.depthwise", channels, channels, side, k=k, group=channels)
    for channels, side, k in ((96, 112, 3), (144, 56, 3), (192, 28, 3), (576, 14, 3), (72, 56, 3), (672, 14, 5)):
        yield halving(channels, side, k=k)
    for channels, side, k in ((96, 56, 7), (192, 28, 7), (384, 14, 7), (768, 7, 7), (40, 14, 7), (64, 14, 9)):
        yield conv_case("Conv.depthwise.wide", channels, channels, side, k=k, group=channels)
    for channels, side, group in GROUPED:
        yield conv_case("Conv.grouped", channels, channels, side, k=3, group=group)
    for cin, cout, side, k, stride in ((64, 32, 28, 2, 2), (128, 64, 14, 2, 2), (32, 16, 28, 3, 2), (32, 16, 28, 4, 2)):
        yield transposed(cin, cout, side, k=k, stride=stride)


def cases() -> Iterator[LiteCase]:
    """All of them but the edges."""
    yield from convolutions()
    for rows, width, inner in ((197, 192, 768), (197, 192, 192), (49, 384, 1536), (32, 128, 512), (64, 64, 64)):
        yield linear("MatMul", rows, width, inner)
    for rows, width, inner in GEMMS:
        yield linear("Gemm", rows, width, inner)
    for heads, rows, width in ATTENTIONS:
        yield attention(heads, rows, width)
        yield softmax(heads, rows)
    for count, rows, width in ((64, 1000, 64), (128, 4000, 128), (16, 2000, 256)):
        yield rows_of_table(count, rows, width)
    for channels, side in SIZES:
        yield from moving(channels, side)
