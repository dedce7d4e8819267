"""`make profile`: measure what ONNX Runtime's operators cost on this CPU, in float and in int8.

Each case is a chain of equal blocks, long and short. An operator on images is measured between two convolutions,
because ONNX Runtime chooses layouts (NCHWc in float, NHWC in int8) for a region and not for a node. Per kind of
operator a line fixed + a * multiply-accumulates + b * elements read + c * elements written is fitted, never negative,
by relative error.
The result is converters/quantize/profile_data/ort-x86-vnni.json: data, that a plan reads and nobody measures again.
"""

import time

import numpy as np
import onnxruntime
from chains import Case, Measured, table, update
from ort_cases import Block, OrtCase, cases
from ort_net import SCALE, Net

from converters.ort import session
from lepton_edge.cpu import this_cpu

PROFILE = "ort-x86-vnni"
ROUNDS = 40


def chain(case: OrtCase, block: Block, length: int, *, int8: bool) -> onnxruntime.InferenceSession:
    net = Net(int8=int8)
    ends = case.ends(net, net.activation("x"), block, length)
    data = net.model(case.shape, net.node("Concat", ends, axis=1) if case.beside else ends[0])
    return session(data)


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


def measure(case: OrtCase, *, int8: bool) -> float:
    """Nanoseconds of one block without what it has beside the operator."""
    sessions = [chain(case, block, length, int8=int8) for block, length in case.chains]
    return case.one_block(time_all(sessions, case.shape))


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

    one, mix, pointwise, between = (
        Case("", (1, 96, 28, 28), block, (0, elements, elements)) for block in (flat, mixed, alone, depthwise)
    )
    pair = measure(one, int8=True) - measure(one, int8=False)
    crossing = measure(mix, int8=True) - measure(pointwise, int8=True) - measure(between, int8=False)
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
    found = []
    for case in cases():
        found.append(Measured(case, measure(case, int8=False), measure(case, int8=True)))
        found[-1].tell(PROFILE)
    source = f"make profile: {this_cpu().model}, ONNX Runtime {onnxruntime.__version__}, one thread"
    operators = table(found).with_like(LIKE).operators
    update(PROFILE, {"operators": operators, "edges": quantize_costs(), "source": source})


if __name__ == "__main__":
    main()
