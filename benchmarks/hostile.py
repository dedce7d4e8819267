"""Hostile graphs: what ours makes of each, and ONNX Runtime's quantize_static beside it.

    python benchmarks/hostile.py [CASE ...]

The graphs are those of tests/converters/hostile.py. Labels are the float model's own answers, all with a margin, so
float has 100 %. A drop without a refusal is an error in silence: the peer judges nothing, so every drop of it is one.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from ours import Converted, convert, header, row
from peers import quantize_peer

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.converters.hostile import CASES, Case, run

FLOAT = "float32-onnx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE", help=", ".join(CASES))
    header("case", "ours: drop, points", "int8 MACs at most", "quantize_static: drop", "what is hostile")
    tally = {"ours": 0, "refused": 0, "peer": 0, "failed": 0}
    names = parser.parse_args().cases
    for name in names:
        with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
            _judge(CASES[name](), Path(folder), tally)
    print(
        f"\n{len(names)} graphs. Ours: {tally['ours']} wrong in silence, {tally['refused']} refused or kept in float32 "
        f"alone. quantize_static: {tally['peer']} wrong in silence (over the budget), {tally['failed']} not converted "
        "as they are."
    )


def _judge(case: Case, folder: Path, tally: dict[str, int]) -> None:
    model, calibration, evaluation = case.save(folder)
    data = ("--data", evaluation, "--calibration-data", calibration, "--budget", f"{case.budget:g}")
    ours = convert(model, folder, *data, "--no-benchmark", "--keep-all")
    drops = {one: _drop(case, file) for one in ours.variants if one != FLOAT and (file := ours.extract(one, folder))}
    wrong = [one for one, drop in drops.items() if drop > case.budget or abs(drop - _stated(ours, one)) > 1e-6]
    tally["ours"] += bool(wrong)
    tally["refused"] += not drops
    said = ", ".join(f"{one.removesuffix('-onnx')} {drop:+.2f}" for one, drop in drops.items()) or ours.verdict
    peer = quantize_peer(model, case.calibration, folder / "peer.onnx")
    theirs = peer.reason
    tally["failed"] += bool(peer.reason)
    if peer.path:
        drop = _drop(case, peer.path)
        theirs = peer.noted(f"{drop:+.2f}")
        tally["peer"] += drop > case.budget
    shares = [one["int8_macs"] for name, one in ours.variants.items() if name in drops and one["int8_macs"] is not None]
    row((case.name, said, f"{max(shares):.2f}" if shares else "-", theirs, case.why))


def _stated(ours: Converted, variant: str) -> float:
    """The drop that the converter itself tells of a file."""
    return float(ours.variants[variant]["drop"])


def _drop(case: Case, file: Path) -> float:
    scores = run(file, case.evaluation)[0]
    wrong = (scores.argmax(axis=1) != case.labels) | ~np.isfinite(scores).all(axis=1)
    return 100 * float(np.mean(wrong))


if __name__ == "__main__":
    main()
