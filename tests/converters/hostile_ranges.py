"""Hostile by their numbers: tensors whose range eight bits cannot carry, or only with care."""

import numpy as np
from onnx import TensorProto

from tests.converters.hostile_net import EASY, Arrays, Case, Net, normal_draw

WIDE = 32
SIDE = 10
PLANE = ["batch", WIDE, SIDE, SIDE]
TOKENS, DIM = 12, 32


def plane_net(seed: int) -> Net:
    return Net(seed, {"x": PLANE}, normal_draw(WIDE, SIDE, SIDE))


def vector_net(seed: int, wide: int = 64, *, scale: float = 1.0) -> Net:
    return Net(seed, {"x": ["batch", wide]}, normal_draw(wide, scale=scale))


def spread_channels() -> Case:
    net = plane_net(1)
    scale = np.geomspace(0.01, 10, WIDE, dtype=np.float32)
    weight = net.normal(WIDE, WIDE, 1, 1, fan=WIDE) * scale[:, None, None, None]
    x = net.relu(net.conv_of("x", weight, net.normal(WIDE, gain=0.1) * scale))
    depthwise = net.normal(WIDE, 1, 3, 3, fan=9) / scale[:, None, None, None]
    x = net.conv_of(x, depthwise, net.normal(WIDE, gain=0.1), group=WIDE, pads=[1, 1, 1, 1])
    net.head(net.pooled(net.relu(x)), WIDE)
    return net.case("spread-channels", "channel ranges spread 1000x into a depthwise convolution")


def masked_softmax() -> Case:
    def draw(rng: np.random.Generator, count: int) -> Arrays:
        lengths = rng.integers(3, TOKENS + 1, count)
        x = normal_draw(TOKENS, DIM)(rng, count)["x"]
        return {"x": x, "mask": (np.arange(TOKENS) < lengths[:, None]).astype(np.int64)}

    net = Net(2, {"x": ["batch", TOKENS, DIM], "mask": ["batch", TOKENS]}, draw, types={"mask": TensorProto.INT64})
    absent = net.add("Sub", net.const(1.0), net.add("Cast", "mask", to=TensorProto.FLOAT))
    added = net.add("Unsqueeze", net.add("Mul", absent, net.const(-1e9)), net.const([1], np.int64))
    query, key, value = (net.dense("x", DIM, DIM) for _ in range(3))
    scores = net.add("MatMul", query, net.add("Transpose", key, perm=[0, 2, 1]))
    weights = net.add("Softmax", net.add("Add", net.add("Mul", scores, net.const(DIM**-0.5)), added), axis=-1)
    read = net.relu(net.dense(net.add("MatMul", weights, value), DIM, DIM))
    net.head(net.add("ReduceMean", read, axes=[1], keepdims=0), DIM)
    return net.case("masked-softmax", "a mask of -1e9 added before the softmax of attention")


def one_hot_sums() -> Case:
    """The last digit of a number, as the number less its other digits: both sums reach 9999, their difference 9."""

    def draw(rng: np.random.Generator, count: int) -> Arrays:
        numbers = rng.choice(10_000, count, replace=False)
        return {"digits": numbers[:, None] // np.array([1000, 100, 10, 1]) % 10}

    net = Net(3, {"digits": ["batch", 4]}, draw, types={"digits": TensorProto.INT64})
    hot = net.add("OneHot", "digits", net.const(10, np.int64), net.const([0.0, 1.0]))
    flat = net.add("Reshape", hot, net.const([-1, 40], np.int64))
    places = (np.array([1000, 100, 10, 1])[:, None] * np.arange(10)[None]).reshape(40, 1)
    whole = net.add("MatMul", flat, net.const(places))
    rest = net.add("MatMul", flat, net.const(np.where(np.arange(40)[:, None] < 30, places, 0)))
    classes = np.arange(10.0)
    line = net.add("Mul", net.add("Sub", whole, rest), net.const(2 * classes[None]))
    net.outputs["scores"] = ["batch", 10]
    net.add("Sub", line, net.const(classes[None] ** 2), out="scores")
    return net.case("one-hot-sums", "one-hot values into large sums that cancel")


def spelled_layer_norm() -> Case:
    def draw(rng: np.random.Generator, count: int) -> Arrays:
        x = normal_draw(TOKENS, DIM)(rng, count)["x"]
        scale = 10.0 ** rng.uniform(-2, 2, (count, TOKENS, 1))
        return {"x": (x * scale + rng.standard_normal((count, 1, 1)) * 10 * scale).astype(np.float32)}

    net = Net(4, {"x": ["batch", TOKENS, DIM]}, draw)
    away = net.add("Sub", "x", net.add("ReduceMean", "x", axes=[-1]))
    variance = net.add("ReduceMean", net.add("Pow", away, net.const(2.0)), axes=[-1])
    normed = net.add("Div", away, net.add("Sqrt", net.add("Add", variance, net.const(1e-6))))
    x = net.add("Add", net.add("Mul", normed, net.const(net.normal(DIM) + 1)), net.const(net.normal(DIM, gain=0.2)))
    x = net.dense(net.relu(net.dense(x, DIM, 4 * DIM)), 4 * DIM, DIM)
    net.head(net.add("ReduceMean", x, axes=[1], keepdims=0), DIM)
    return net.case("spelled-layer-norm", "layer norm written out, means and variances spread over 8 decades")


def spelled_gelu() -> Case:
    net = vector_net(5)
    x = net.dense("x", 64, 128, gain=3)
    cube = net.add("Mul", net.add("Pow", x, net.const(3.0)), net.const(0.044715))
    tanh = net.add("Tanh", net.add("Mul", net.add("Add", x, cube), net.const(0.7978845608)))
    gelu = net.add("Mul", net.add("Mul", x, net.add("Add", tanh, net.const(1.0))), net.const(0.5))
    net.head(net.dense(gelu, 128, 64), 64)
    return net.case("spelled-gelu", "tanh-GELU written out: cubes of activations")


def growing_residual() -> Case:
    net = vector_net(6)
    x = "x"
    for _ in range(30):
        x = net.add("Add", x, net.dense(net.relu(net.dense(x, 64, 64)), 64, 64, gain=0.45))
    net.head(x, 64)
    return net.case("growing-residual", "a residual sum over 30 layers whose range grows throughout")


def unequal_concat() -> Case:
    net = plane_net(7)
    small = net.conv("x", WIDE, 16, 1)
    large = net.add("Mul", net.conv("x", WIDE, 16, 1), net.const(500.0))
    x = net.add("Concat", small, large, axis=1)
    weight = net.normal(WIDE, 32, 3, 3, fan=32 * 9)
    weight[:, 16:] /= 500
    x = net.relu(net.conv_of(x, weight, net.normal(WIDE, gain=0.1), pads=[1, 1, 1, 1]))
    net.head(net.pooled(x), WIDE)
    return net.case("unequal-concat", "a Concat of ranges that differ 500x")


def dead_channels() -> Case:
    net = plane_net(8)
    weight = net.normal(WIDE, WIDE, 3, 3, fan=WIDE * 9)
    weight[:4] = 0
    weight[4:8] *= 1e-12
    x = net.relu(net.conv_of("x", weight, net.normal(WIDE, gain=3), pads=[1, 1, 1, 1]))
    net.head(net.pooled(net.relu(net.conv(x, WIDE, WIDE))), WIDE)
    return net.case(
        "dead-channels", "channels without weights whose bias fits no int32 at their own scale", converts=True
    )


def huge_bias() -> Case:
    net = plane_net(9)
    weight, bias = net.normal(WIDE, WIDE, 3, 3, fan=WIDE * 9), net.normal(WIDE, gain=0.1)
    weight[:4], bias[:4] = weight[:4] * 1e-8, 1e4
    x = net.relu(net.conv_of("x", weight, bias, pads=[1, 1, 1, 1]))
    after = net.normal(WIDE, WIDE, 3, 3, fan=WIDE * 9)
    after[:, :4] *= 1e-4
    x = net.relu(net.conv_of(x, after, net.normal(WIDE, gain=0.1), pads=[1, 1, 1, 1]))
    net.head(net.pooled(x), WIDE)
    return net.case("huge-bias", "dead channels with a bias of 10,000 beside live ones of 1")


def weight_outlier() -> Case:
    def draw(rng: np.random.Generator, count: int) -> Arrays:
        x = normal_draw(64)(rng, count)["x"]
        x[:, 0] *= 1e-3
        return {"x": x}

    net = Net(10, {"x": ["batch", 64]}, draw)
    weight = net.normal(64, 64, fan=64)
    weight[0] *= 400
    x = net.relu(net.add("Gemm", "x", net.const(weight), net.const(net.normal(64, gain=0.1))))
    net.head(net.dense(x, 64, 64), 64)
    return net.case("weight-outlier", "one weight in each column 400 times the others, read by an input near zero")


def saturating() -> Case:
    def draw(rng: np.random.Generator, count: int) -> Arrays:
        kinds = np.random.default_rng(11).uniform(0.75, 1, (8, 256))
        return {"x": (255 * kinds[rng.integers(0, 8, count)] * rng.uniform(0.97, 1, (count, 256))).astype(np.float32)}

    net = Net(11, {"x": ["batch", 256]}, draw)
    weight = np.repeat(np.sign(net.normal(64, 64)), 4, axis=0)
    weight[-64:] = 1
    x = net.relu(net.add("Gemm", "x", net.const(weight / 256), net.const(np.full(64, -20.0))))
    net.head(net.dense(x, 64, 64), 64, floor=EASY)
    return net.case("saturating", "inputs near 255 with weights near 127: pairs overflow 16 bits", converts=True)


def wide_softmax() -> Case:
    wide, classes = 48, 10_000
    table = np.random.default_rng(12).standard_normal((classes, wide)).astype(np.float32)

    def draw(rng: np.random.Generator, count: int) -> Arrays:
        x = table[rng.integers(0, classes, count)] + 0.5 * rng.standard_normal((count, wide))
        return {"x": x.astype(np.float32)}

    net = Net(12, {"x": ["batch", wide]}, draw)
    scores = net.add("Gemm", "x", net.const(table), net.const(-(table**2).sum(1) / 2), transB=1)
    net.outputs["share"] = ["batch", classes]
    net.add("Softmax", scores, axis=-1, out="share")
    return net.case("wide-softmax", "Softmax over 10,000 classes as the output")


def negative_only() -> Case:
    net = plane_net(13)
    x = net.add("Sub", net.add("Neg", net.relu(net.conv("x", WIDE, WIDE))), net.const(3.0))
    net.head(net.pooled(net.conv(x, WIDE, WIDE)), WIDE, floor=EASY)
    return net.case("negative-only", "tensors below zero, padded with zeros", converts=True)


def constant_input() -> Case:
    def draw(rng: np.random.Generator, count: int) -> Arrays:
        return {**normal_draw(WIDE, SIDE, SIDE)(rng, count), "offset": np.zeros((count, WIDE, 1, 1), np.float32)}

    net = Net(14, {"x": PLANE, "offset": ["batch", WIDE, 1, 1]}, draw)
    offset = net.conv("offset", WIDE, WIDE, 1)
    x = net.relu(net.add("Add", net.conv("x", WIDE, WIDE), offset))
    net.head(net.pooled(net.conv(x, WIDE, WIDE)), WIDE, floor=EASY)
    return net.case("constant-input", "an input and all behind it that never changes in calibration", converts=True)


def tiny_values() -> Case:
    net = vector_net(15, scale=1e-12)
    x = net.add("Mul", net.relu(net.dense("x", 64, 64)), net.const(1.0))
    net.weights = {name: array * 1e-12 if array.shape == (64,) else array for name, array in net.weights.items()}
    net.head(net.dense(net.add("Mul", x, net.const(1e12)), 64, 64), 64)
    return net.case("tiny-values", "activations of 1e-12, brought to 1 by a later factor")


def huge_values() -> Case:
    net = vector_net(16, scale=1e6)
    x = net.relu(net.dense("x", 64, 64))
    net.head(net.dense(net.add("Mul", x, net.const(1e-6)), 64, 64), 64)
    return net.case("huge-values", "activations of a million: beyond float16 too")


def outlier_sample() -> Case:
    net = plane_net(17)
    x = net.relu(net.conv(net.relu(net.conv("x", WIDE, WIDE)), WIDE, WIDE))
    net.head(net.pooled(x), WIDE)
    case = net.case("outlier-sample", "one calibration sample 300 times louder than any other")
    case.calibration["x"][7] *= 300
    return case


def log_sum_exp() -> Case:
    net = vector_net(18)
    x = net.dense("x", 64, 128, gain=4)
    groups = net.add("Reshape", net.add("Exp", x), net.const([-1, 16, 8], np.int64))
    total = net.add("ReduceSum", groups, net.const([2], np.int64), keepdims=0)
    net.head(net.dense(net.add("Log", total), 16, 32), 32)
    return net.case("log-sum-exp", "Exp, ReduceSum and Log written out: values over nine decades")


def unit_length() -> Case:
    def draw(rng: np.random.Generator, count: int) -> Arrays:
        return {"x": (normal_draw(64)(rng, count)["x"] * 10.0 ** rng.uniform(-3, 3, (count, 1))).astype(np.float32)}

    net = Net(19, {"x": ["batch", 64]}, draw)
    squares = net.add("ReduceSum", net.add("Mul", "x", "x"), net.const([1], np.int64))
    unit = net.add("Div", "x", net.add("Sqrt", net.add("Add", squares, net.const(1e-12))))
    net.head(net.dense(net.relu(net.dense(unit, 64, 64)), 64, 64), 64)
    return net.case("unit-length", "vectors over six decades divided by their length")


def variance_by_squares() -> Case:
    def draw(rng: np.random.Generator, count: int) -> Arrays:
        spread = rng.uniform(0.2, 2, (count, WIDE, 1, 1))
        x = 20 + spread * rng.standard_normal((count, WIDE, SIDE, SIDE))
        return {"x": x.astype(np.float32)}

    net = Net(20, {"x": PLANE}, draw)
    mean = net.add("ReduceMean", "x", axes=[2, 3])
    squares = net.add("ReduceMean", net.add("Mul", "x", "x"), axes=[2, 3])
    variance = net.add("Sub", squares, net.add("Mul", mean, mean))
    net.head(net.dense(net.add("Flatten", variance), WIDE, 64), 64)
    return net.case("variance-by-squares", "a variance as the mean of squares less the square of the mean")


RANGES = (
    spread_channels,
    masked_softmax,
    one_hot_sums,
    spelled_layer_norm,
    spelled_gelu,
    growing_residual,
    unequal_concat,
    dead_channels,
    huge_bias,
    weight_outlier,
    saturating,
    wide_softmax,
    negative_only,
    constant_input,
    tiny_values,
    huge_values,
    outlier_sample,
    log_sum_exp,
    unit_length,
    variance_by_squares,
)
