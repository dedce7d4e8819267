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
from ours import convert, header, row
from peers import quantize_peer

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.converters.hostile import CASES, Case, run

STATIC = "int8-onnx-u8s8"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE", help=", ".join(CASES))
    header("case", "ours: drop, points", "int8 MACs", "quantize_static: drop", "what is hostile")
    tally = {"ours": 0, "refused": 0, "peer": 0, "failed": 0}
    names = parser.parse_args().cases
    for name in names:
        with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
            _judge(CASES[name](), Path(folder), tally)
    print(
        f"\n{len(names)} graphs. Ours: {tally['ours']} wrong in silence, {tally['refused']} refused or left in float. "
        f"quantize_static: {tally['peer']} wrong in silence (over the budget), {tally['failed']} not converted at all."
    )


def _judge(case: Case, folder: Path, tally: dict[str, int]) -> None:
    model, calibration, evaluation = case.save(folder)
    data = ("--data", evaluation, "--calibration-data", calibration, "--budget", f"{case.budget:g}")
    ours = convert(model, folder, *data, "--no-benchmark", "--keep-all")
    file = ours.extract(STATIC, folder)
    said = ours.verdict if file is None else ""
    if file is None:
        tally["refused"] += 1
    else:
        drop = _drop(case, file)
        said = f"{drop:+.2f}"
        tally["ours"] += drop > case.budget or abs(drop - float(ours.variants[STATIC]["drop"])) > 1e-6
    peer = quantize_peer(model, case.calibration, folder / "peer.onnx")
    theirs = peer.reason
    if peer.path is None:
        tally["failed"] += 1
    else:
        drop = _drop(case, peer.path)
        theirs = f"{drop:+.2f}"
        tally["peer"] += drop > case.budget
    share = ours.variants.get(STATIC, {}).get("int8_macs")
    row((case.name, said, "-" if share is None else f"{share:.2f}", theirs, case.why))


def _drop(case: Case, file: Path) -> float:
    scores = run(file, case.evaluation)[0]
    wrong = (scores.argmax(axis=1) != case.labels) | ~np.isfinite(scores).all(axis=1)
    return 100 * float(np.mean(wrong))


if __name__ == "__main__":
    main()
