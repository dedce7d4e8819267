"""Random operators on rows and on tensors of any rank."""

import math

import numpy as np
from onnx import TensorProto

from tests.converters.tflite.random_graph import LENGTH, MOST, Net, Shape
from tests.converters.tflite.random_kinds import KINDS as ON_IMAGES
from tests.converters.tflite.random_kinds import Kind


def rows(shape: Shape) -> bool:
    return len(shape) in {2, 3, 4}


def stacks(shape: Shape) -> bool:
    return len(shape) in {3, 4}


def series(shape: Shape) -> bool:
    return len(shape) == 3


def anything(shape: Shape) -> bool:
    return len(shape) <= 6


# on rows


def dense(net: Net, x: str, shape: Shape) -> None:
    if shape[-1] == LENGTH:
        return
    out = net.pick([4, 6])
    weight = net.weight(shape[-1], out, fan=shape[-1])
    if len(shape) > 2:
        product = net.emit("MatMul", [x, weight], (*shape[:-1], out))
        net.emit("Add", [product, net.weight(out)], (*shape[:-1], out))
    elif net.chance(0.5):
        net.emit("Gemm", [x, weight, net.weight(out)], (shape[0], out))
    else:
        turned = net.weight(out, shape[-1], fan=shape[-1])
        net.emit("Gemm", [x, turned, net.weight(1, out)], (shape[0], out), transB=1, alpha=0.5, beta=2.0)


def perceptron(net: Net, x: str, shape: Shape) -> None:
    """Two layers and an activation between, as in a transformer's block."""
    if shape[-1] == LENGTH:
        return
    wide = (*shape[:-1], 12)
    inner = net.emit("MatMul", [x, net.weight(shape[-1], 12, fan=shape[-1])], wide)
    inner = net.emit("Add", [net.weight(12), inner], wide)
    inner = net.emit(net.choose(["Relu", "Gelu", "Sigmoid"]), [inner], wide)
    out = net.emit("MatMul", [inner, net.weight(12, shape[-1], fan=12)], shape)
    net.emit("Add", [out, x], shape)


def weights_left(net: Net, x: str, shape: Shape) -> None:
    """A constant matrix from the left: mixes rows."""
    if shape[-2] != LENGTH:
        net.emit("MatMul", [net.weight(5, shape[-2], fan=shape[-2]), x], (*shape[:-2], 5, shape[-1]))


def attend(net: Net, x: str, shape: Shape) -> None:
    if shape[-2] > 40:
        return
    order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    turned = net.emit("Transpose", [x], tuple(shape[axis] for axis in order), perm=order)
    score = net.emit("MatMul", [x, turned], (*shape[:-2], shape[-2], shape[-2]))
    share = net.emit("Softmax", [score], (*shape[:-2], shape[-2], shape[-2]), axis=-1)
    net.emit("MatMul", [share, x], shape)


def heads(net: Net, x: str, shape: Shape) -> None:
    """Attention of two heads: the four transposes of a transformer."""
    batch, time, wide = shape
    if wide % 2 or wide == LENGTH or time > 40:
        return
    parted: Shape = (batch, time, 2, wide // 2)
    turned: Shape = (batch, 2, time, wide // 2)
    asked = net.numbers(0, -1 if time == LENGTH else time, 2, wide // 2)
    parts = []
    for _ in range(3):
        made = net.emit("MatMul", [x, net.weight(wide, wide, fan=wide)], shape)
        made = net.emit("Reshape", [net.emit("Add", [made, net.weight(wide)], shape), asked], parted)
        parts.append(net.emit("Transpose", [made], turned, perm=[0, 2, 1, 3]))
    keys = net.emit("Transpose", [parts[1]], (batch, 2, wide // 2, time), perm=[0, 1, 3, 2])
    score = net.emit("MatMul", [parts[0], keys], (batch, 2, time, time))
    score = net.emit("Mul", [score, net.number(0.5)], (batch, 2, time, time))
    share = net.emit("Softmax", [score], (batch, 2, time, time), axis=-1)
    mixed = net.emit("MatMul", [share, parts[2]], turned)
    net.reshape(net.emit("Transpose", [mixed], parted, perm=[0, 2, 1, 3]), shape)


def norm(net: Net, x: str, shape: Shape) -> None:
    if shape[-1] > 2 and shape[-1] != LENGTH:
        weights = [net.factors(shape[-1]), net.weight(shape[-1])]
        net.emit("LayerNormalization", [x, *weights], shape, axis=-1, epsilon=1e-1)


def time_first(net: Net, x: str, shape: Shape) -> None:
    """The batch behind the time for a while, and a recurrent layer there."""
    batch, time, wide = shape
    if LENGTH in shape:
        return
    turned = net.emit("Transpose", [x], (time, batch, wide), perm=[1, 0, 2])
    op = net.choose(["GRU", "LSTM"])
    gates = {"GRU": 3, "LSTM": 4}[op]
    weights = [net.weight(1, gates * 3, size, fan=size) for size in (wide, 3)]
    made = net.emit(op, [turned, *weights, net.weight(1, gates * 6)], (time, 1, batch, 3), hidden_size=3)
    flat = net.emit("Squeeze", [made, net.numbers(1)], (time, batch, 3))
    net.emit("Transpose", [flat], (batch, time, 3), perm=[1, 0, 2])
    for name in (turned, made, flat):
        del net.shapes[name]


# on anything


def act(net: Net, x: str, shape: Shape) -> None:
    op = net.choose(["Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Gelu", "Clip", "HardSigmoid", "Elu"])
    bounds = net.choose(["0 6", "0 6", "-1 1", "-0.5 2"]).split() if op == "Clip" else []
    net.emit(op, [x, *(net.number(float(bound)) for bound in bounds)], shape)


def curve(net: Net, x: str, shape: Shape) -> None:
    """Functions of one number that do not jump."""
    op = net.choose(["Abs", "Neg", "Erf", "Softplus", "Softsign", "Selu", "Celu", "Mish", "Sin", "Cos"])
    net.emit(op, [x], shape)


def safe(net: Net, x: str, shape: Shape) -> None:
    """Functions that want a range."""
    far = net.emit("Abs", [x], shape)
    op = net.choose(["Exp", "Sqrt", "Log", "Reciprocal"])
    near = net.emit("Neg", [far], shape) if op == "Exp" else net.emit("Add", [far, net.number(1.0)], shape)
    net.emit(op, [near], shape)


def scale(net: Net, x: str, shape: Shape) -> None:
    axis = int(net.rng.integers(len(shape)))
    if shape[axis] == LENGTH:
        return
    sizes = [size if index == axis else 1 for index, size in enumerate(shape)]
    sizes = sizes[int(net.rng.integers(axis + 1)) :]
    numbers = net.weight(*sizes)
    op = net.choose(["Mul", "Add", "Sub", "Max", "Min"])
    net.emit(op, [x, numbers] if net.chance(0.7) else [numbers, x], shape)


def divide(net: Net, x: str, shape: Shape) -> None:
    below = net.emit("Add", [net.emit("Abs", [net.like(shape)], shape), net.number(1.0)], shape)
    net.emit("Div", [x, below], shape)


def join(net: Net, x: str, shape: Shape) -> None:
    other = net.like(shape)
    op = net.choose(["Add", "Mul", "Sub", "Max", "Concat", "Concat"])
    if op != "Concat":
        net.emit(op, [x, other], shape)
        return
    axis, count = net.axis(shape), net.pick([2, 2, 3])
    if shape[axis] != LENGTH and math.prod(shape) * count <= MOST:
        sizes = tuple(count * size if index == axis else size for index, size in enumerate(shape))
        net.emit("Concat", [x, other, x][:count], sizes, axis=axis - (len(shape) if net.chance(0.3) else 0))


def beside(net: Net, x: str, shape: Shape) -> None:
    """Joined with what a product gives: other scales, other sizes."""
    axis = net.axis(shape)
    if shape[axis] < 2 or shape[axis] == LENGTH:
        return
    cut = [size - 1 if index == axis else size for index, size in enumerate(shape)]
    part = net.emit("Slice", [x, net.numbers(0), net.numbers(shape[axis] - 1), net.numbers(axis)], tuple(cut))
    large = net.emit("Mul", [part, net.number(3.0)], tuple(cut))
    sizes = tuple(size + cut[axis] if index == axis else size for index, size in enumerate(shape))
    net.emit("Concat", [large, x], sizes, axis=axis)


def broadcast(net: Net, x: str, shape: Shape) -> None:
    """Two activations of which one has axes of size 1."""
    others = [
        name
        for name, sizes in net.shapes.items()
        if len(sizes) == len(shape) and all(one in {1, size} for one, size in zip(sizes, shape, strict=True))
    ]
    net.emit(net.choose(["Add", "Mul", "Sub"]), [x, net.choose(others)], shape)


def turn(net: Net, x: str, shape: Shape) -> None:
    order = [0, *(1 + int(axis) for axis in net.rng.permutation(len(shape) - 1))]
    net.emit("Transpose", [x], tuple(shape[axis] for axis in order), perm=order)


def cut(net: Net, x: str, shape: Shape) -> None:
    axis, last = net.axis(shape), np.iinfo(np.int64).max
    size = shape[axis]
    if size < 3 or size == LENGTH:
        return
    starts, ends, step, left = [
        (1, size, 1, size - 1),
        (0, -1, 1, size - 1),
        (-2, last, 1, 2),
        (0, size, 2, -(-size // 2)),
        (-1, -size - 1, -1, size),
    ][net.pick(range(5))]
    sizes = tuple(left if index == axis else one for index, one in enumerate(shape))
    net.emit("Slice", [x, *(net.numbers(one) for one in (starts, ends, axis, step))], sizes)


def split(net: Net, x: str, shape: Shape) -> None:
    axis = net.axis(shape)
    size = shape[axis]
    if size < 2 or size == LENGTH:
        return
    parts = [size // 2] * 2 if size % 2 == 0 and net.chance(0.6) else [1, size - 1]
    shapes = [tuple(part if index == axis else one for index, one in enumerate(shape)) for part in parts]
    made = net.emit_all("Split", [x, net.numbers(*parts)], shapes, axis=axis)
    if parts[0] == parts[1] and net.chance(0.5):
        net.emit("Mul", [made[0], net.emit("Sigmoid", [made[1]], shapes[1])], shapes[0])


def gather(net: Net, x: str, shape: Shape) -> None:
    axis = net.axis(shape)
    size = shape[axis]
    if size == LENGTH:
        return
    if net.chance(0.3) and len(shape) > 2:
        index = net.array(np.array(int(net.rng.integers(-size, size)), np.int64))
        net.emit("Gather", [x, index], (*shape[:axis], *shape[axis + 1 :]), axis=axis)
    else:
        picked = net.numbers(*(int(one) for one in net.rng.integers(0, size, 3)))
        net.emit("Gather", [x, picked], (*shape[:axis], 3, *shape[axis + 1 :]), axis=axis)


def pad(net: Net, x: str, shape: Shape) -> None:
    pads = net.rng.integers(0, 2, 2 * len(shape))
    fixed = [size == LENGTH or not axis for axis, size in enumerate(shape)] * 2
    pads[fixed] = 0
    mode = net.choose(["constant", "constant", "number", "edge", "reflect"])
    if mode == "reflect" and any(size < 2 for size in shape[1:]):
        return
    sizes = tuple(int(size) for size in np.array(shape) + pads[: len(shape)] + pads[len(shape) :])
    value = [net.number(-0.5)] if mode == "number" else []
    net.emit("Pad", [x, net.array(pads), *value], sizes, mode="constant" if mode == "number" else mode)


def reduce(net: Net, x: str, shape: Shape) -> None:
    axis = net.axis(shape)
    axes = [axis] if net.chance(0.6) else list(range(axis, len(shape)))
    op = net.choose(["ReduceMean", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2"])
    keep = net.chance(0.6)
    sizes = [1 if index in axes else size for index, size in enumerate(shape) if keep or index not in axes]
    if len(sizes) > 1:
        net.emit(op, [x, net.numbers(*axes)], tuple(sizes), keepdims=int(keep))


def share(net: Net, x: str, shape: Shape) -> None:
    net.emit(net.choose(["Softmax", "Softmax", "LogSoftmax"]), [x], shape, axis=net.axis(shape))


def view(net: Net, x: str, shape: Shape) -> None:
    axis = net.axis(shape)
    if LENGTH in shape:
        return
    if shape[axis] % 2 == 0 and len(shape) < 5:
        net.reshape(x, (*shape[:axis], 2, shape[axis] // 2, *shape[axis + 1 :]))
    elif len(shape) > 2:
        at = int(net.rng.integers(1, len(shape) - 1))
        net.reshape(x, (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :]))


def mixed_view(net: Net, x: str, shape: Shape) -> None:
    """All but the batch read with other sizes, which need not part the old ones."""
    whole = math.prod(shape[1:])
    sizes = [size for size in (2, 3, 4, 6) if whole % size == 0]
    if sizes and LENGTH not in shape:
        size = net.pick(sizes)
        net.reshape(x, (shape[0], size, whole // size) if net.chance(0.5) else (shape[0], whole // size, size))


def flatten(net: Net, x: str, shape: Shape) -> None:
    if LENGTH not in shape:
        net.emit("Flatten", [x], (shape[0], int(np.prod(shape[1:]))), axis=1)


def tile(net: Net, x: str, shape: Shape) -> None:
    axis = net.axis(shape)
    if shape[axis] == 1:
        wanted = [5 if index == axis else 1 for index in range(len(shape))]
        sizes = tuple(5 if index == axis else size for index, size in enumerate(shape))
        net.emit(net.choose(["Expand", "Tile"]), [x, net.numbers(*wanted)], sizes)


def running_sum(net: Net, x: str, shape: Shape) -> None:
    axis = net.array(np.array(net.axis(shape), np.int64))
    net.emit("CumSum", [x, axis], shape, exclusive=net.pick([0, 1]), reverse=net.pick([0, 1]))


def where(net: Net, x: str, shape: Shape) -> None:
    """A choice that does not jump where it changes."""
    positive = net.emit(net.choose(["Greater", "GreaterOrEqual"]), [x, net.number(0.0)], shape)
    small = net.emit("Mul", [x, net.number(0.2)], shape)
    net.emit("Where", [positive, x, small], shape)
    del net.shapes[positive]


def cast(net: Net, x: str, shape: Shape) -> None:
    """Through another type and back; whole numbers far from the edge between two."""
    whole = net.emit("Cast", [x], shape, to=TensorProto.DOUBLE)
    net.emit("Cast", [whole], shape, to=TensorProto.FLOAT)
    del net.shapes[whole]


def give(net: Net, x: str, shape: Shape) -> None:
    """Outputs that are inputs or constants, or another output under a second name."""
    source = net.choose([x, *net.inputs, net.weight(4, 3)])
    made = net.emit("Identity", [source], net.shapes.get(source, (4, 3)))
    del net.shapes[made]


KINDS: list[Kind] = [
    *ON_IMAGES,
    *ON_IMAGES,
    *[(rows, kind) for kind in (dense, dense, perceptron, norm)],
    *[(stacks, kind) for kind in (attend, weights_left)],
    *[(series, kind) for kind in (heads, time_first)],
    *[(anything, kind) for kind in (act, act, act, curve, safe, scale, scale, divide, join, join, join, beside)],
    *[(anything, kind) for kind in (broadcast, turn, turn, cut, split, gather, pad, reduce, reduce, share, view, view)],
    *[(anything, kind) for kind in (mixed_view, flatten, tile, running_sum, where, cast, give)],
]
