"""`make profile`: measure what ONNX Runtime's operators cost on this CPU, in float and in int8.

Each case is a chain of equal blocks, long and short; the difference of their times by the difference in length is one
block, free of the ends. An operator on images is measured between two convolutions, because ONNX Runtime
chooses layouts (NCHWc in float, NHWC in int8) for a region and not for a node. Per kind of operator a line
fixed + a * multiply-accumulates + b * elements read + c * elements written is fitted, never negative, by relative
error.
The result is converters/quantize/profile_data/ort-x86-vnni.json: data, that a plan reads and nobody measures again.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from lines import Line, error, fit
from onnx import TensorProto, helper, numpy_helper

from lepton_edge.cpu import this_cpu

TARGET = Path(__file__).parent.parent / "converters" / "quantize" / "profile_data" / "ort-x86-vnni.json"
SHORT, ROUNDS = 2, 40
SCALE, WEIGHT_SCALE = 0.05, 0.002
OPSET = 20


class Net:
    """A graph being built, in float or in int8 (QDQ, U8 activations, S8 weights)."""

    def __init__(self, *, int8: bool) -> None:
        self.int8 = int8
        self.channels = 0
        self.shared = ""
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(0)

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, operator: str, inputs: list[str], **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], f"n{len(self.nodes)}", **attributes))
        return name

    def activation(self, x: str, scale: float = SCALE, zero: int = 128) -> str:
        """Quantise and dequantise, where this net is int8."""
        if not self.int8:
            return x
        ends = [self.constant(np.float32(scale)), self.constant(np.uint8(zero))]
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [x, *ends]), *ends])

    def weight(self, shape: tuple[int, ...], axis: int) -> str:
        if not self.int8:
            return self.constant(self._rng.normal(0, 0.05, shape).astype(np.float32))
        steps = self.constant(self._rng.integers(-127, 128, shape).astype(np.int8))
        count = shape[axis]
        scale, zero = np.full(count, WEIGHT_SCALE, np.float32), np.zeros(count, np.int8)
        return self.node("DequantizeLinear", [steps, self.constant(scale), self.constant(zero)], axis=axis)

    def bias(self, count: int, scale: float = SCALE) -> str:
        if not self.int8:
            return self.constant(np.zeros(count, np.float32))
        steps = self.constant(np.zeros(count, np.int32))
        scales, zero = np.full(count, scale * WEIGHT_SCALE, np.float32), np.zeros(count, np.int32)
        return self.node("DequantizeLinear", [steps, self.constant(scales), self.constant(zero)], axis=0)

    def conv(
        self, x: str, cin: int, cout: int, *, k: int = 1, group: int = 1, stride: int = 1, relu: bool = True
    ) -> str:
        inputs = [x, self.weight((cout, cin // group, k, k), 0), self.bias(cout)]
        made = self.node("Conv", inputs, kernel_shape=[k, k], pads=[k // 2] * 4, strides=[stride] * 2, group=group)
        self.channels = cout
        return self.activation(self.node("Relu", [made]), SCALE, 0) if relu else self.activation(made)

    def model(self, shape: tuple[int, ...], output: str) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "chain",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 9
        data: bytes = model.SerializeToString()
        return data


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        kind: the key in the profile.
        shape: of the chain's input.
        block: adds one block to a net.
        work: (multiply-accumulates, elements read, elements written) of one block.
        base: adds what the block contains beside the operator; its time is taken off.
        beside: blocks stand side by side on the chain's input, each with a small output, rather than in a row.
    """

    kind: str
    shape: tuple[int, ...]
    block: Callable[[Net, str], str]
    work: tuple[int, int, int]
    base: Callable[[Net, str], str] | None = None
    beside: bool = False
    results: dict[bool, float] = field(default_factory=dict)

    @property
    def long(self) -> int:
        """Small blocks need a longer chain to stand out of the noise."""
        return 6 if max(self.work[0] / 20, *self.work) > 200_000 else 14


def conv_case(kind: str, cin: int, cout: int, side: int, *, k: int = 1, group: int = 1) -> Case:
    """There and back again, so that the chain's shape stays; both convolutions are of the kind."""
    area = side * side
    macs = 2 * cout * (cin // group) * k * k * area

    def block(net: Net, x: str) -> str:
        return net.conv(net.conv(x, cin, cout, k=k, group=group), cout, cin, k=k, group=group)

    return Case(kind, (1, cin, side, side), block, (macs, (cin + cout) * area, (cin + cout) * area))


def stem_case(cin: int, cout: int, side: int, *, k: int = 3, stride: int = 1) -> Case:
    """A convolution of few input channels has no way back; what its mean adds is small."""
    area = (side // stride) ** 2

    def block(net: Net, x: str) -> str:
        made = net.conv(x, cin, cout, k=k, stride=stride)
        return net.activation(net.node("GlobalAveragePool", [made]), SCALE, 0)

    work = (cout * cin * k * k * area, cin * side * side, cout * area)
    return Case("Conv.stem", (1, cin, side, side), block, work, beside=True)


def between(
    kind: str, channels: int, side: int, op: Callable[[Net, str], str], *, reads: float = 1, writes: float = 1
) -> Case:
    """An operator between pointwise convolutions."""
    elements = channels * side * side

    def base(net: Net, x: str) -> str:
        return net.conv(x, channels, channels, relu=False)

    def block(net: Net, x: str) -> str:
        return op(net, base(net, x))

    shape = (1, channels, side, side)
    return Case(kind, shape, block, (0, int(elements * reads), int(elements * writes)), base)


def behind(kind: str, channels: int, side: int, op: Callable[[Net, str], str], less: Callable[[Net, str], str]) -> Case:
    """An operator that cannot stand alone in a chain: what comes with it is taken off too."""
    return replace(between(kind, channels, side, op), base=between(kind, channels, side, less).block)


def matmul_case(kind: str, rows: int, width: int, inner: int) -> Case:
    macs, elements = 2 * rows * width * inner, rows * (width + inner)

    def linear(net: Net, x: str, i: int, o: int) -> str:
        inputs = [x, net.weight((i, o), 1)]
        if kind == "Gemm":
            return net.activation(net.node("Gemm", [*inputs, net.bias(o)]))
        return net.activation(net.node("Add", [net.node("MatMul", inputs), net.bias(o)]))

    def block(net: Net, x: str) -> str:
        return linear(net, linear(net, x, width, inner), inner, width)

    shape = (rows, width) if kind == "Gemm" else (1, rows, width)
    return Case(kind, shape, block, (macs, elements, elements))


def attention_case(heads: int, rows: int, width: int) -> Case:
    """x @ x^T, then that @ x."""
    macs, scores, values = 2 * heads * rows * rows * width, heads * rows * rows, heads * rows * width

    def block(net: Net, x: str) -> str:
        scored = net.activation(net.node("MatMul", [x, net.node("Transpose", [x], perm=[0, 1, 3, 2])]))
        return net.activation(net.node("MatMul", [scored, x]))

    return Case("MatMul.dynamic", (1, heads, rows, width), block, (macs, 3 * values + scores, scores + values))


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


def _plain(operator: str, **attributes: object) -> Callable[[Net, str], str]:
    return lambda net, x: net.activation(net.node(operator, [x], **attributes))


def _twice(operator: str) -> Callable[[Net, str], str]:
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
SIZES = ((32, 56), (96, 28), (192, 14), (384, 7), (24, 14))


def moving_cases(channels: int, side: int) -> Iterator[Case]:
    """Operators whose cost is bytes, between convolutions."""
    plain: dict[str, Callable[[Net, str], str]] = {
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


def ragged_cases() -> Iterator[Case]:
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


def cases() -> Iterator[Case]:  # noqa: C901 - a list of loops
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
        *(
            (1, 16, 28, 3),
            (1, 32, 28, 3),
            (3, 16, 32, 3),
            (3, 32, 112, 3),
            (3, 64, 112, 7),
            (1, 64, 49, 5),
            (3, 16, 96, 3),
        ),
    ):
        yield stem_case(cin, cout, side, k=k)
    for cout, side, k, stride in (
        (32, 224, 3, 2),
        (16, 224, 3, 2),
        (64, 224, 7, 2),
        (96, 224, 4, 4),
        (192, 224, 16, 16),
    ):
        yield stem_case(3, cout, side, k=k, stride=stride)
    for channels, side, k in (
        *((32, 112, 3), (96, 56, 3), (144, 28, 3), (192, 28, 3), (384, 14, 3), (576, 14, 3), (960, 7, 3)),
        *((240, 14, 5), (576, 7, 5), (96, 56, 7), (384, 14, 7), (768, 7, 7), (16, 56, 3)),
    ):
        yield conv_case("Conv.depthwise", channels, channels, side, k=k, group=channels)
    for channels, side, group in ((64, 28, 8), (128, 14, 4), (128, 28, 32), (256, 14, 32)):
        yield conv_case("Conv.grouped", channels, channels, side, k=3, group=group)
    for rows, width, inner in (
        *((197, 192, 768), (197, 192, 192), (49, 384, 1536), (32, 128, 512), (64, 64, 64), (784, 96, 384)),
    ):
        yield matmul_case("MatMul", rows, width, inner)
    for rows, width, inner in ((1, 512, 1000), (1, 1280, 1000), (1, 64, 128), (64, 256, 256), (1, 128, 10)):
        yield matmul_case("Gemm", rows, width, inner)
    for heads, rows, width in ((3, 197, 64), (4, 32, 32), (6, 64, 64)):
        yield attention_case(heads, rows, width)
    for channels, side in SIZES:
        yield from moving_cases(channels, side)


def session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def chain(case: Case, block: Callable[[Net, str], str], length: int, *, int8: bool) -> onnxruntime.InferenceSession:
    net = Net(int8=int8)
    x = net.activation("x")
    ends = [x]
    for _ in range(length):
        ends.append(block(net, x if case.beside else ends[-1]))
    return session(net.model(case.shape, net.node("Concat", ends[1:], axis=1) if case.beside else ends[-1]))


def time_all(sessions: list[onnxruntime.InferenceSession], shape: tuple[int, ...]) -> list[float]:
    """Nanoseconds a run, the fastest tenth's edge: what else runs on the machine only ever adds."""
    feed = {"x": np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)}
    times: list[list[float]] = [[] for _ in sessions]
    for round_index in range(ROUNDS + 2):
        for one, kept in zip(sessions, times, strict=True):
            before = time.perf_counter_ns()
            one.run(None, feed)
            if round_index > 1:
                kept.append(time.perf_counter_ns() - before)
    return [float(np.quantile(kept, 0.1)) for kept in times]


def measure(case: Case) -> None:
    blocks = [case.block] + ([case.base] if case.base else [])
    for int8 in (False, True):
        sessions = [chain(case, block, length, int8=int8) for block in blocks for length in (SHORT, case.long)]
        times = time_all(sessions, case.shape)
        each = [(times[i + 1] - times[i]) / (case.long - SHORT) for i in range(0, len(times), 2)]
        case.results[int8] = each[0] - sum(each[1:])


def fit_cases(found: list[Case], *, int8: bool) -> Line:
    """The line of one kind of operator."""
    return fit([case.work for case in found], [case.results[int8] for case in found])


def quantize_costs() -> dict[str, float]:
    """Q and DQ of flat tensors, half of the pair each; and what a change of layout adds beside a convolution."""
    elements = 96 * 28 * 28

    def flat(net: Net, x: str) -> str:
        return net.node("Neg", [net.activation(x)])

    def mixed(net: Net, x: str) -> str:
        int8, net.int8 = net.int8, False
        y = net.conv(x, 96, 96, k=3, group=96)
        net.int8 = int8
        return net.conv(net.activation(y, SCALE, 0), 96, 96)

    def alone(net: Net, x: str) -> str:
        return net.conv(x, 96, 96)

    def depthwise(net: Net, x: str) -> str:
        return net.conv(x, 96, 96, k=3, group=96)

    shape = (1, 96, 28, 28)
    one = Case("", shape, flat, (0, elements, elements))
    measure(one)
    pair = one.results[True] - one.results[False]
    mix, pointwise, float_depthwise = (Case("", shape, block, (0, 0, 0)) for block in (mixed, alone, depthwise))
    for case in (mix, pointwise, float_depthwise):
        measure(case)
    crossing = mix.results[True] - pointwise.results[True] - float_depthwise.results[False]
    relayout = max(0.0, (crossing - pair) / 2 / elements)
    edges = {"quantize": pair / 2 / elements, "dequantize": pair / 2 / elements, "relayout": relayout}
    return {name: float(f"{value:.4g}") for name, value in edges.items()}


LIKE = {
    **dict.fromkeys(("DepthToSpace", "Gather", "SpaceToDepth"), "Transpose"),
    **dict.fromkeys(("Slice", "Split"), "Concat"),
    "Clip": "Relu",
    "GlobalMaxPool": "GlobalAveragePool",
}
"""Operators that were not measured, and one that moves as many bytes."""


def main() -> None:
    found: dict[str, list[Case]] = {}
    for case in cases():
        measure(case)
        ratio = case.results[False] / max(case.results[True], 1)
        sys.stderr.write(
            f"{case.kind:18} {case.shape!s:20} {case.results[False]:>10.0f} ns float, {ratio:.2f}x in int8\n"
        )
        found.setdefault(case.kind, []).append(case)
    operators = {
        kind: {"in_float": fit_cases(group, int8=False), "in_int8": fit_cases(group, int8=True)}
        for kind, group in found.items()
    }
    for kind, group in found.items():
        errors = [
            f"{statistics.median(error(operators[kind][form], case.work, case.results[int8]) for case in group):.0%}"
            for form, int8 in (("in_float", False), ("in_int8", True))
        ]
        sys.stderr.write(f"{kind:18} median error of the line: {errors[0]} in float, {errors[1]} in int8\n")
    operators |= {kind: operators[like] for kind, like in LIKE.items()}
    document = json.loads(TARGET.read_text(encoding="utf-8"))
    document |= {"operators": dict(sorted(operators.items())), "edges": quantize_costs()}
    document["source"] = f"make profile: {this_cpu().model}, ONNX Runtime {onnxruntime.__version__}, one thread"
    TARGET.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
