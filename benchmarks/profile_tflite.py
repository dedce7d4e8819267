"""`make profile`: measure what TFLite's operators cost on this CPU, in float and in int8, in each runtime.

As profile_ort.py: chains of equal blocks, long and short, whose difference is free of the ends; per kind of operator a
line is fitted. Where an operator has several int8 forms, the profile names the one that costs least. Results are
converters/quantize/profile_data/{litert-xnnpack,litert-builtin,tflite-runtime-2.14}.json; the last one is measured
where LEPTON_TFLITE_RUNTIME_PYTHON names a Python that has tflite-runtime.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lines import Line, error, fit
from tflite_cases import Block, Case, cases, edges
from tflite_net import Net

from converters.tflite.pack import write_file
from lepton_edge.cpu import this_cpu

FOLDER = Path(__file__).parent.parent / "converters" / "quantize" / "profile_data"
WORKER = Path(__file__).with_name("time_tflite.py")
SHORT = 2
BUDGET_S = 0.15
"""Of each form of a case in each runtime."""
EDGES_BUDGET_S = 0.6
"""What a change of form costs is a small difference of large numbers, and decides on every float island."""


class Target(NamedTuple):
    """A profile to measure. kernels: "auto" (with XNNPACK where the runtime has it) or "builtin"."""

    profile: str
    python: str
    kernels: str = "auto"


class Measured(NamedTuple):
    """Nanoseconds of one block; None where the runtime does not take it."""

    case: Case
    in_float: float | None
    in_int8: float | None


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


def write_chain(case: Case, block: Block, length: int, path: Path, *, int8: bool) -> Path:
    net = Net(case.shape, int8=int8)
    ends = [net.x]
    for _ in range(length):
        ends.append(block(net, net.x if case.beside else ends[-1]))
    write_file(net.model(ends[1:] if case.beside else ends[-1:]), path)
    return path


def measure(case: Case, worker: Worker, folder: Path, *, int8: bool) -> float | None:
    """One block without what it has beside the operator."""
    blocks = [case.block] + ([case.base] if case.base else [])
    lengths = (SHORT, case.long)
    files = [
        write_chain(case, block, length, folder / f"{i}-{length}.tflite", int8=int8)
        for i, block in enumerate(blocks)
        for length in lengths
    ]
    times = worker.times(files, EDGES_BUDGET_S if case.kind == "edge" else BUDGET_S)
    if isinstance(times, str):
        sys.stderr.write(f"{case.kind} {case.rewriting} {case.shape}: {times}\n")
        return None
    each = [(times[i + 1] - times[i]) / (case.long - SHORT) for i in range(0, len(times), 2)]
    return each[0] - sum(each[1:])


def measure_all(target: Target, wanted: Sequence[Case]) -> list[Measured]:
    worker = Worker(target)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for case in wanted:
            pair = [measure(case, worker, Path(folder), int8=int8) for int8 in (False, True)]
            found.append(Measured(case, *pair))
            _tell(target, found[-1])
    worker.close()
    return found


def _tell(target: Target, one: Measured) -> None:
    if one.in_float is not None and one.in_int8 is not None:
        ratio = one.in_float / max(one.in_int8, 1)
        name = f"{one.case.kind} {one.case.rewriting}"
        sys.stderr.write(
            f"{target.profile:20} {name:26} {one.case.shape!s:20} {one.in_float:>10.0f} ns float, {ratio:.2f}x\n"
        )


class Table(NamedTuple):
    """operators: kind -> lines of both forms. rewritings: operator -> the form that costs least."""

    operators: dict[str, dict[str, Line]]
    rewritings: dict[str, str]


def table(found: Sequence[Measured]) -> Table:
    """The lines of each kind, in its best form."""
    kinds: dict[str, dict[str, list[Measured]]] = {}
    for one in found:
        if one.in_float is not None and one.in_int8 is not None:
            kinds.setdefault(one.case.kind, {}).setdefault(one.case.rewriting, []).append(one)
    made = Table({}, {})
    for kind, forms in kinds.items():
        best = min(forms, key=lambda form: sum(_share(one) for one in forms[form]))
        group = forms[best]
        works = [one.case.work for one in group]
        # What one float operator costs does not depend on the int8 form beside it: all measurements count.
        every = [one for form in forms.values() for one in form]
        in_float = fit([one.case.work for one in every], [one.in_float or 0.0 for one in every])
        in_int8 = fit(works, [one.in_int8 or 0.0 for one in group])
        made.operators[kind] = {"in_float": in_float, "in_int8": in_int8}
        if best:
            made.rewritings[kind] = best
        errors = [
            statistics.median(error(line, one.case.work, time or 0.0) for one, time in pairs)
            for line, pairs in (
                (in_float, [(one, one.in_float) for one in every]),
                (in_int8, [(one, one.in_int8) for one in group]),
            )
        ]
        sys.stderr.write(f"{kind:20} {best:14} median error of the line: {errors[0]:.0%} float, {errors[1]:.0%} int8\n")
    return made


def _share(one: Measured) -> float:
    """Time in int8 as a share of that in float, so that each size counts alike."""
    return (one.in_int8 or 0.0) / max(one.in_float or 0.0, 1.0)


def edge_costs(found: Sequence[Measured]) -> Line:
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


def _document(target: Target) -> dict[str, object]:
    held: dict[str, object] = json.loads((FOLDER / f"{target.profile}.json").read_text(encoding="utf-8"))
    return held


def main() -> None:
    for target in targets():
        made = table(measure_all(target, list(cases())))
        pairs = measure_all(target, list(edges()))
        operators = made.operators | {kind: made.operators[like] for kind, like in LIKE.items()}
        rewritings = made.rewritings | {
            kind: made.rewritings[like] for kind, like in LIKE.items() if like in made.rewritings
        }
        document = _document(target) | {
            "speed": "measured",
            "operators": dict(sorted(operators.items())),
            "edges": edge_costs(pairs),
            "rewritings": dict(sorted(rewritings.items())),
            "source": f"make profile: {this_cpu().model}, {target.profile}, one thread",
        }
        (FOLDER / f"{target.profile}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
