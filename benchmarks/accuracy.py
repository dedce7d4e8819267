"""Accuracy: trained models with real data, int8 against float, ONNX Runtime's quantize_static beside it.

    python benchmarks/accuracy.py [efficientnet] [resnet8] [text_direction] [speech] [text_encoder]

Ours and the peer get the same calibration samples and are judged on the same others, sample by sample, outside of the
converter. A drop is paired, in points, with its 95 % interval; agreement is the share of samples with float's answer.
The first conversion of a model allows any drop, so that nothing in it is chosen on the samples that judge it; where
that misses what is wanted, a second row shows what the same command makes of it under that budget.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from ours import SERVED_HERE, Converted, convert, header, row, save_samples
from peers import quantize_peer
from subjects import SUBJECTS, Samples, Subject
from timing import input_name
from wheels import AbsentError

from converters.measure.intervals import Interval, count_pairs, paired_difference
from converters.ort import session

FLOAT = "float32-onnx"
FORMS = (SERVED_HERE, "int8-onnx-u8u8", "int8-onnx-s8s8")
"""The forms of int8, the one for this CPU first; another is judged where a plan finds that int8 does not pay here."""
ANY = "100"
AGREEMENT = {"efficientnet": 97.0}

Answers = npt.NDArray[np.int64]


class Marks(NamedTuple):
    """A file against float, in points."""

    drop: Interval
    agreement: float

    def __str__(self) -> str:
        low, high = 100 * self.drop.low, 100 * self.drop.high
        return f"{100 * self.drop.value:+.2f} [{low:+.2f}, {high:+.2f}], agrees {self.agreement:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = {make.__name__: make for make in SUBJECTS}
    parser.add_argument("subjects", nargs="*", default=list(names), metavar="SUBJECT", help=", ".join(names))
    header("model", "n", "float top-1", "ours: drop [95 %], agreement", "wanted", "int8 MACs", "quantize_static")
    for name in parser.parse_args().subjects:
        marks: dict[str, list[Marks]] = defaultdict(list)
        try:
            for subject in names[name]():
                with tempfile.TemporaryDirectory(prefix="accuracy-") as folder:
                    _judge(subject, Path(folder), marks)
        except AbsentError as absent:
            row((name, f"skipped: {absent}", *[""] * 5))
        if len(marks["ours"]) > 1:
            _print_mean(name, marks, subject.limit)


def _judge(subject: Subject, folder: Path, marks: dict[str, list[Marks]]) -> None:
    calibration, evaluation = subject.calibration, subject.evaluation
    data = ["--data", save_samples(folder / "evaluation.npz", {"x": evaluation.x}, evaluation.y)]
    data += ["--calibration-data", save_samples(folder / "calibration.npz", {"x": calibration.x}, calibration.y)]
    data += ["--no-benchmark", "--keep-all", "--budget"]
    free = convert(subject.model, folder, *data, ANY)
    model = subject.model if subject.model.suffix == ".onnx" else free.extract(FLOAT, folder)
    if model is None:
        row((subject.name, len(evaluation.y), "-", free.verdict, f"<= {subject.limit:.1f} MISSED", "-", "-"))
        return
    float_answers = answers(model, evaluation)
    rate = f"{100 * np.mean(float_answers == evaluation.y):.2f} %"
    found, cells = _ours(subject, free, folder, float_answers)
    theirs = _theirs(subject, model, folder, float_answers, marks)
    row((subject.name, len(evaluation.y), rate, *cells, theirs))
    if found:
        marks["ours"].append(found)
    if free.status or (found and 100 * found.drop.value > subject.limit):
        bound = convert(subject.model, folder, *data, f"{subject.limit:g}")
        _, cells = _ours(subject, bound, folder, float_answers)
        row((f"{subject.name}, budget {subject.limit:g}", len(evaluation.y), rate, *cells, ""))


def _ours(
    subject: Subject, ours: Converted, folder: Path, float_answers: Answers
) -> tuple[Marks | None, tuple[str, str, str]]:
    """What our file does, and its cells: drop, what is wanted, the share of int8."""
    made = next((one for one in FORMS if ours.variants.get(one, {}).get("kept")), FORMS[0])
    file = ours.extract(made, folder)
    share = ours.variants.get(made, {}).get("int8_macs")
    part = "-" if share is None else f"{share:.3f}"
    if file is None:
        wanted = "no int8 form" if ours.status == 0 else "MISSED"
        return None, (ours.verdict, f"<= {subject.limit:.1f} {wanted}", part)
    found = compare(float_answers, answers(file, subject.evaluation), subject.evaluation.y)
    stated = float(ours.variants[made]["drop"])
    note = "" if abs(stated - 100 * found.drop.value) < 1e-6 else f" BUT STATED {stated:+.2f}"
    note += "" if made == SERVED_HERE else f" ({made})"
    verdict = "met" if 100 * found.drop.value <= subject.limit else "MISSED"
    return found, (f"{found}{note}", f"<= {subject.limit:.1f} {verdict}", part)


def _theirs(subject: Subject, model: Path, folder: Path, float_answers: Answers, marks: dict[str, list[Marks]]) -> str:
    peer = quantize_peer(model, {input_name(model): subject.calibration.x}, folder / "peer.onnx")
    if peer.path is None:
        return peer.reason
    found = compare(float_answers, answers(peer.path, subject.evaluation), subject.evaluation.y)
    marks["peer"].append(found)
    return peer.noted(str(found))


def _print_mean(name: str, marks: dict[str, list[Marks]], limit: float) -> None:
    means = {
        side: (100 * np.mean([one.drop.value for one in found]), np.mean([one.agreement for one in found]))
        for side, found in marks.items()
        if found
    }
    drop, agreement = means["ours"]
    met = drop <= limit and agreement >= AGREEMENT.get(name, 0.0)
    wanted = f"<= {limit:.1f}" + (f", agrees >= {AGREEMENT[name]:.0f} %" if name in AGREEMENT else "")
    texts = {side: f"{value[0]:+.2f}, agrees {value[1]:.1f} %" for side, value in means.items()}
    counts = f"{len(marks['ours'])} splits"
    row((f"{name}, mean", counts, "", texts["ours"], f"{wanted} {'met' if met else 'MISSED'}", "", texts.get("peer")))


def answers(file: Path, samples: Samples) -> Answers:
    """The class of each sample, run one by one; -1 where a score is no number."""
    one, name = session(file), input_name(file)
    scores = np.concatenate([one.run(None, {name: x[None]})[0].reshape(1, -1) for x in samples.x])
    return np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1), -1)


def compare(float_answers: Answers, found: Answers, labels: npt.NDArray[np.int64]) -> Marks:
    drop = paired_difference(count_pairs(float_answers == labels, found == labels))
    return Marks(drop, 100 * float(np.mean(float_answers == found)))


if __name__ == "__main__":
    main()
