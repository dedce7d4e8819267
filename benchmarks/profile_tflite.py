"""`make profile`: measure what TFLite's operators cost on this CPU, in float and in int8, in each runtime.

As profile_ort.py, by chains of equal blocks. Where an operator has several int8 forms, the profile names the one that
costs least. Results are converters/quantize/profile_data/{litert-xnnpack,litert-builtin,tflite-runtime-2.14}.json; the
last one is measured where LEPTON_TFLITE_RUNTIME_PYTHON names a Python that has tflite-runtime.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from chains import Measured, table, update
from lines import Line
from tflite_cases import Block, LiteCase, cases, edges
from tflite_net import Net, Value

from converters.tflite.pack import write_file
from lepton_edge.cpu import this_cpu

LiteMeasured = Measured[Net, Value]
WORKER = Path(__file__).with_name("time_tflite.py")
BUDGET_S = 0.15
"""Of each form of a case in each runtime."""
EDGES_BUDGET_S = 0.6
"""What a change of form costs is a small difference of large numbers, and decides on every float island."""


class Target(NamedTuple):
    """A profile to measure. kernels: "auto" (with XNNPACK where the runtime has it) or "builtin"."""

    profile: str
    python: str
    kernels: str = "auto"


class Worker:
    """A process that times files."""

    def __init__(self, target: Target) -> None:
        self._process = subprocess.Popen(
            [target.python, str(WORKER), target.kernels],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def times(self, files: Sequence[Path], budget: float = BUDGET_S) -> list[float] | str:
        """Nanoseconds a run of each file, or why there are none."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("started with pipes")
        asked = {"files": [str(path) for path in files], "budget_s": budget}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "the runtime crashed"}')
        return answer if isinstance(answer, list) else str(answer["error"])

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def targets() -> Iterator[Target]:
    yield Target("litert-xnnpack", sys.executable)
    yield Target("litert-builtin", sys.executable, "builtin")
    other = os.environ.get("LEPTON_TFLITE_RUNTIME_PYTHON")
    if other:
        yield Target("tflite-runtime-2.14", other)


def write_chain(case: LiteCase, block: Block, length: int, path: Path, *, int8: bool) -> Path:
    net = Net(case.shape, int8=int8)
    write_file(net.model(case.ends(net, net.x, block, length)), path)
    return path


def measure(case: LiteCase, worker: Worker, folder: Path, *, int8: bool) -> float | None:
    """One block without what it has beside the operator."""
    files = [
        write_chain(case, block, length, folder / f"{at}.tflite", int8=int8)
        for at, (block, length) in enumerate(case.chains)
    ]
    times = worker.times(files, EDGES_BUDGET_S if case.kind == "edge" else BUDGET_S)
    if isinstance(times, str):
        sys.stderr.write(f"{case.kind} {case.rewriting} {case.shape}: {times}\n")
        return None
    return case.one_block(times)


def measure_all(target: Target, wanted: Iterable[LiteCase]) -> list[LiteMeasured]:
    worker = Worker(target)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for case in wanted:
            in_float, in_int8 = (measure(case, worker, Path(folder), int8=int8) for int8 in (False, True))
            found.append(Measured(case, in_float, in_int8))
            found[-1].tell(target.profile)
    worker.close()
    return found


def edge_costs(found: Sequence[LiteMeasured]) -> Line:
    """Half of what a pair around a float operator adds to it, an element.

    Of all sizes together: large tensors, which leave the cache, are those that a wrong change of form costs most on.
    """
    pairs = [(one.case.work[1], one.in_int8 - one.in_float) for one in found if one.in_int8 and one.in_float]
    each = float(f"{sum(added for _, added in pairs) / 2 / sum(elements for elements, _ in pairs):.4g}")
    return {"quantize": each, "dequantize": each}


LIKE = {
    "Clip": "Relu",
    "Conv.depthwise.ragged.wide": "Conv.depthwise.wide",
    "ReduceMax": "GlobalMaxPool",
    "SpaceToDepth": "DepthToSpace",
    "Split": "Slice",
}
"""Operators that were not measured, and one that moves as many bytes."""


def main() -> None:
    for target in targets():
        made = table(measure_all(target, cases())).with_like(LIKE)
        fields = {
            "speed": "measured",
            "operators": made.operators,
            "edges": edge_costs(measure_all(target, edges())),
            "rewritings": made.rewritings,
            "source": f"make profile: {this_cpu().model}, {target.profile}, one thread",
        }
        update(target.profile, fields)


if __name__ == "__main__":
    main()
