"""Many small networks with random weights, taken to both formats: is the answer right, is anything refused, is it fast?

    python benchmarks/zoo.py [NAME ...] [--float]        # NAME is a part of a network's name

Float: the TFLite file against ONNX Runtime on the graph itself, at batch 1 and, where the batch is open, 3: the largest
difference over the largest output; how many operators the file has where its borders are free, and how many of them
only change the order of axes. Int8: how far each file is from float (root mean square over the standard deviation), and
its time over its float file on this machine. What goes wrong is listed below the table.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import numpy.typing as npt

from converters.convert import convert
from converters.model import Model
from converters.request import Request
from lepton_edge.bundle import Bundle
from tests.converters.tflite.zoo.case import Case
from tests.converters.tflite.zoo.check import built, float_check, native_operators

WORST = 2e-5
SAMPLES, CALIBRATION = 24, 12
Array = npt.NDArray[np.generic]
HEADING = "".join(
    f"{word:>{width}}"
    for word, width in zip(
        ("", "import", "write", "float", "ops", "moves", "onnx", "tflite", "onnx x", "lite x", "s"),
        (20, 7, 7, 9, 5, 6, 7, 7, 7, 7, 6),
        strict=True,
    )
)


def cases() -> list[Case]:
    """All networks; those of Keras where it is installed."""
    from tests.converters.tflite.zoo.dense import DENSE
    from tests.converters.tflite.zoo.images import IMAGES
    from tests.converters.tflite.zoo.layers import LAYERS
    from tests.converters.tflite.zoo.sequences import SEQUENCES

    return [*IMAGES, *DENSE, *SEQUENCES, *LAYERS]


def one(case: Case, *, float_only: bool, problems: list[str]) -> str:
    """A row of the table."""
    started = time.perf_counter()
    model = built(case)
    imported = time.perf_counter() - started
    started = time.perf_counter()
    worst = float_check(model, case)
    written = time.perf_counter() - started
    operators = native_operators(model)
    moves = operators["TRANSPOSE"]
    if worst > WORST:
        problems.append(f"{case.name}: float differs by {worst:.1e}")
    row = f"{case.name:20}{imported:7.1f}{written:7.2f}{worst:9.1e}{operators.total():5d}{moves:6d}"
    return row if float_only else row + int8(model, case, problems)


def int8(model: Model, case: Case, problems: list[str]) -> str:
    """The columns of the quantised files."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "o.lep"
        names = [spec.name for spec in model.signature.inputs]
        np.savez(Path(folder) / "x.npz", **dict(zip(names, case.samples(SAMPLES, seed=3), strict=True)))
        request = Request(
            model=model.source.model, out=out, data=Path(folder) / "x.npz", calibration=CALIBRATION, budget=100.0,
            keep_all=True,
        )  # fmt: skip
        outcome = convert(request)
        seconds = time.perf_counter() - started
        if not out.exists():
            problems.append(f"{case.name}: nothing kept: {outcome.reason}")
            return f"{'':28}{seconds:6.1f}"
        bundle = Bundle.open(out)
        far = deviations(bundle)
    for name, text in outcome.not_made.items():
        problems.append(f"{case.name}: no {name}: {text}")
    ratios = {}
    for variant in outcome.variants:
        if variant.reason:
            problems.append(f"{case.name}: {variant.name}: {variant.reason}")
        for latency in variant.latency:
            ratios.setdefault(
                variant.name, latency.float_p50_ms / latency.p50_ms if latency.p50_ms and latency.float_p50_ms else 0
            )

    def best(prefix: str, table: Mapping[str, float]) -> str:
        found = [
            value
            for name, value in table.items()
            if name.startswith("int8") and "dynamic" not in name and prefix in name
        ]
        return f"{found[0]:7.3f}" if found else f"{'-':>7}"

    return "".join(
        [best("onnx", far), best("tflite", far), best("onnx", ratios), best("tflite", ratios), f"{seconds:6.1f}"]
    )


def deviations(bundle: Bundle) -> dict[str, float]:
    """Variant -> the worst output's root mean square of the difference from float, over its standard deviation."""
    golden = bundle.golden()
    found = {}
    for variant in bundle.manifest.variants:
        expected = golden.expected(variant.name)
        gaps = []
        for name, want in golden.float_outputs.items():
            got, real = expected[name].astype(float), want.astype(float)
            gaps.append(float(np.sqrt(((got - real) ** 2).mean()) / (real.std() + 1e-9)))
        found[variant.name] = max(gaps)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--float", action="store_true", help="no int8")
    parser.add_argument("-v", action="store_true", help="tracebacks")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    problems: list[str] = []
    print(HEADING)
    for case in cases():
        if given.names and not any(name in case.name for name in given.names):
            continue
        try:
            print(one(case, float_only=given.float, problems=problems), flush=True)
        except Exception as error:  # noqa: BLE001 - a net that fails keeps no other from its row
            print(f"{case.name:20} {type(error).__name__}", flush=True)
            problems.append(f"{case.name}: {type(error).__name__}: {str(error)[:600]}")
            if given.v:
                traceback.print_exc()
    print("\n".join(problems))


if __name__ == "__main__":
    main()
