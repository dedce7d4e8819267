"""Random nets through the TFLite writer: float, layouts and int8, by the thousand.

    python benchmarks/fuzz_tflite.py [--float N] [--layouts N] [--int8 N] [--seed FIRST]

What is compared is said in tests/converters/tflite/fuzzing.py; test_fuzz.py beside it is the short form. Exits with 1
where anything is wrong.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ours import header, row

sys.path.insert(0, str(Path(__file__).parent.parent))

from converters.measure.teacher import Taught
from lepton_edge.errors import UnsupportedOperatorError
from tests.converters.tflite.fuzzing import (
    ALL,
    FLOAT_LIMIT,
    REWRITTEN,
    STEPS,
    TFLITE,
    Calibrated,
    Quantised,
    fuzz_float,
    fuzz_layout,
)


def float_files(seeds: range, folder: Path) -> int:
    """Print the figures; how many nets are wrong."""
    tally: Counter[str] = Counter()
    worst = 0.0
    started = time.perf_counter()
    for seed in seeds:
        try:
            found = fuzz_float(seed, folder)
        except UnsupportedOperatorError as reason:
            tally["refused"] += 1
            print(f"seed {seed}: refused: {reason}")
            continue
        wrong = [one for one in found if one.wrong]
        over = [one for one in found if one.worst > FLOAT_LIMIT]
        tally["wrong" if wrong else "unsteady" if over else "right"] += 1
        worst = max([worst, *(one.worst for one in found if one not in over)])
        if over:
            print(f"seed {seed}: {'wrong' if wrong else 'unsteady in ONNX Runtime too'}: {max(over)}")
    header("float nets", "right", "wrong", "unsteady", "refused", "worst diff / max of the right", "s")
    seconds = time.perf_counter() - started
    counts = [tally[one] for one in ("right", "wrong", "unsteady", "refused")]
    row((len(seeds), *counts, f"{worst:.1e}", f"{seconds:.0f}"))
    return tally["wrong"]


def layouts(seeds: range) -> int:
    """Print the figures; how many programs have a cheaper choice of layouts."""
    programs = tried = dearer = 0
    for seed in seeds:
        for native in (False, True):
            try:
                cost = fuzz_layout(seed, native=native)
            except UnsupportedOperatorError:
                continue
            programs += 1
            if cost.least is not None:
                tried += 1
                dearer += cost.chosen != cost.least
                if cost.chosen != cost.least:
                    print(f"seed {seed}, native {native}: {cost}")
    header("programs", "every choice tried", "as cheap as the cheapest", "dearer")
    row((programs, tried, tried - dearer, dearer))
    return dearer


def int8_files(seeds: range, folder: Path) -> int:
    """Print the figures; how many files have an operator that is too far off, or are so as a whole."""
    made: dict[str, list[Quantised]] = {name: [] for name in (*TFLITE, ALL, REWRITTEN)}
    refused: Counter[str] = Counter()
    for seed in seeds:
        net = Calibrated(seed)
        for name, kept in made.items():
            try:
                one = net.quantised(name, folder, native=True)
            except UnsupportedOperatorError as reason:
                refused[name] += 1
                print(f"seed {seed}, {name}: refused: {reason}")
                continue
            if one is None:
                continue
            kept.append(one)
            if one.far or one.strays:
                print(f"seed {seed}, {name}: {one.far or (one.apart, one.error)}")
    header(
        "profile",
        "nets",
        "in int8",
        "refused",
        f"operators over {STEPS} steps",
        "files astray",
        "LiteRT from QDQ, median of int8's error",
    )
    for name, kept in made.items():
        _int8_row(name, kept, len(seeds), refused[name])
    _operators([one for kept in made.values() for one in kept])
    return sum(bool(one.far) or one.strays for kept in made.values() for one in kept)


def _int8_row(name: str, kept: Sequence[Quantised], nets: int, refused: int) -> None:
    far, astray = sum(len(one.far) for one in kept), sum(one.strays for one in kept)
    shares = [max(one.apart.values()) / one.error for one in kept if one.error > 0]
    row((name, nets, len(kept), refused, far, astray, f"{np.median(shares):.2f}" if shares else "-"))


def _operators(kept: Sequence[Quantised]) -> None:
    by_code: dict[tuple[str, str], list[Taught]] = {}
    for one in kept:
        for kernels, part in one.taught.items():
            for taught in part:
                by_code.setdefault((taught.code, kernels), []).append(taught)
    header("operator", "kernels", "how many", "elements", "steps at most", "exact")
    for (code, kernels), found in sorted(by_code.items()):
        elements = sum(one.elements for one in found)
        exact = sum(one.elements * one.exact for one in found) / elements if elements else 1.0
        row((code, kernels, len(found), elements, max(one.steps for one in found), f"{100 * exact:.3f} %"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--float", type=int, default=1000, metavar="N", help="nets in float")
    parser.add_argument("--layouts", type=int, default=500, metavar="N", help="nets whose layouts are tried")
    parser.add_argument("--int8", type=int, default=200, metavar="N", help="nets in int8, in five profiles each")
    parser.add_argument("--seed", type=int, default=0, metavar="FIRST", help="the first net")
    asked = parser.parse_args()
    first = asked.seed
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        wrong = float_files(range(first, first + asked.float), Path(name)) if asked.float else 0
        wrong += layouts(range(first, first + asked.layouts)) if asked.layouts else 0
        wrong += int8_files(range(first, first + asked.int8), Path(name)) if asked.int8 else 0
    return int(wrong > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
