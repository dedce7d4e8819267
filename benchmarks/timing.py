"""Fair times on a noisy machine: every file in turn, round after round; only ratios within a round are compared."""

import collections
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from converters.ort import session

ROUNDS = 5
ROUND_S = 0.6
FEWEST = 10
WARM_UP = 3


class Times(NamedTuple):
    """Median milliseconds of each round, by file; rounds are in the same order everywhere."""

    ms: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.ms[name])

    def ratio(self, name: str, base: str = "float") -> float:
        """How much faster than the base: the median of the rounds' ratios."""
        return statistics.median(b / a for a, b in zip(self.ms[name], self.ms[base], strict=True))


def input_name(path: Path) -> str:
    """The name of a model's only input."""
    (only,) = session(path).get_inputs()
    return str(only.name)


def interleaved(files: Mapping[str, Path], inputs: dict[str, np.ndarray], *, rounds: int = ROUNDS) -> Times:
    """Time one inference of `inputs` per file, one thread, in ONNX Runtime."""
    return rounds_of({name: partial(session(path).run, None, inputs) for name, path in files.items()}, rounds=rounds)


def rounds_of(calls: Mapping[str, Callable[[], object]], *, rounds: int = ROUNDS) -> Times:
    """Time calls in turn, round after round."""
    for call in calls.values():
        _run(call, WARM_UP)
    slowest = max(statistics.median(_run(call, 3)) for call in calls.values())
    count = max(FEWEST, int(ROUND_S * 1000 / slowest))
    ms: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            ms[name].append(statistics.median(_run(call, count)))
    return Times(ms)


def _run(call: Callable[[], object], count: int) -> list[float]:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1000)
    return times


INT8 = ("QLinear", "QGemm", "QAttention", "QuantizeLinear", "DequantizeLinear", "DynamicQuantize", "MatMulInteger")
FREE = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape", "Gather", "Constant", "Transpose", "Slice"}


def float_kernels(path: Path) -> str:
    """The kernels that ONNX Runtime runs in float in this file after its own fusions: `Softmax 12, Gelu 12`."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimised.onnx"
        session(path, optimised=target)
        nodes = onnx.load(target, load_external_data=False).graph.node
    integer = {name for node in nodes if node.op_type.startswith(INT8[:4]) for name in node.output}
    integer |= {name for node in nodes if node.op_type == "QuantizeLinear" for name in node.output}
    kinds: collections.Counter[str] = collections.Counter()
    for node in nodes:
        if node.op_type.startswith(INT8) or node.op_type in FREE or "Integer" in node.op_type:
            continue
        if any(name in integer for name in node.input):
            integer.update(node.output)  # a pool or concat that runs on the integers themselves
        else:
            kinds[node.op_type] += 1
    return ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()) or "none"
