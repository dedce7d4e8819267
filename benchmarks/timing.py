"""Fair times on a noisy machine: every file in turn, round after round; only ratios within a round are compared."""

import collections
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime

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


def session(path: Path, *, threads: int = 1, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def interleaved(files: Mapping[str, Path], inputs: dict[str, np.ndarray], *, rounds: int = ROUNDS) -> Times:
    """Time one inference of `inputs` per file, one thread, in ONNX Runtime."""
    sessions = {name: session(path) for name, path in files.items()}
    for one in sessions.values():
        _run(one, inputs, WARM_UP)
    slowest = max(statistics.median(_run(one, inputs, 3)) for one in sessions.values())
    count = max(FEWEST, int(ROUND_S * 1000 / slowest))
    ms: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, one in sessions.items():
            ms[name].append(statistics.median(_run(one, inputs, count)))
    return Times(ms)


def _run(one: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray], count: int) -> list[float]:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        one.run(None, inputs)
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
