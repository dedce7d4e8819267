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

from lepton_edge.bundle import Bundle
from lepton_edge.runtimes import installed, open_session

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.converters.hostile import CASES, Case, run

FLOAT = "float32-onnx"
"""What the others are measured against; those of float32 in TFLite are variants like any other."""


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
    kept = (one for one in ours.variants if one != FLOAT)
    drops = {one: _lost(case, scores) for one in kept if (scores := _scores(ours, one, case, folder)) is not None}
    wrong = [one for one, drop in drops.items() if drop > case.budget or abs(drop - _stated(ours, one)) > 1e-6]
    tally["ours"] += bool(wrong)
    int8 = {one: drop for one, drop in drops.items() if ours.variants[one]["int8_macs"] is not None}
    tally["refused"] += not int8
    said = ", ".join(f"{one.removesuffix('-onnx')} {drop:+.2f}" for one, drop in int8.items()) or ours.verdict
    peer = quantize_peer(model, case.calibration, folder / "peer.onnx")
    theirs = peer.reason
    tally["failed"] += bool(peer.reason)
    if peer.path:
        drop = _lost(case, run(peer.path, case.evaluation)[0])
        theirs = peer.noted(f"{drop:+.2f}")
        tally["peer"] += drop > case.budget
    shares = [ours.variants[one]["int8_macs"] for one in int8]
    row((case.name, said, f"{max(shares):.2f}" if shares else "-", theirs, case.why))


def _stated(ours: Converted, variant: str) -> float:
    """The drop that the converter itself tells of a file."""
    return float(ours.variants[variant]["drop"])


def _scores(ours: Converted, name: str, case: Case, folder: Path) -> np.ndarray | None:
    """What a variant's file gives as a device runs it; None where the bundle does not hold it, or it is a twin for a
    runtime that is not here, whose file another variant shows.
    """
    path = ours.extract(name, folder)
    if path is None:
        return None
    manifest = Bundle.open(ours.bundle).manifest
    chosen = manifest.variant(name)
    if chosen.runtime not in installed():
        return None
    session = open_session(path, manifest.signature, chosen)
    return session.run_samples(case.evaluation)[manifest.signature.outputs[0].name]


def _lost(case: Case, scores: np.ndarray) -> float:
    """Points of top-1; scores: (samples, classes) or with more axes of size 1."""
    scores = scores.reshape(len(case.labels), -1)
    wrong = (scores.argmax(axis=1) != case.labels) | ~np.isfinite(scores).all(axis=1)
    return 100 * float(np.mean(wrong))


if __name__ == "__main__":
    main()
