"""Teacher-forced int8: each operator of our TFLite files alone, on its inputs of a whole run, XNNPACK against ORT.

    python benchmarks/teacher.py [--builtin] [NET ...]

The int8 files are what the command makes. An operator is cut out into a file of its own and gets the int8 inputs that
it had in a run of the whole file; LiteRT's answer is compared with ONNX Runtime's on the same cut file read into ONNX
(converters/measure/teacher.py). Float operators of mixed files are left to benchmarks/tflite.py.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ours import NETS, convert, each_net, header, row, save_samples
from tflite import INT8
from timing import input_name

from converters.importers.tflite.convert import border_names
from converters.measure.teacher import BUILTIN, XNNPACK, Taught, teacher_force
from converters.tflite.parse import read_file
from lepton_edge.bundle import Bundle
from lepton_edge.bundle.binding import to_file

CALIBRATION, IMAGES = 50, 2
MOST_STEPS, LEAST_EXACT = 1, 0.9999


def taught(path: Path, folder: Path, kernels: str) -> list[Taught] | str:
    """All operators of one net, or why there is no file."""
    from textures import textures

    images = textures(CALIBRATION + IMAGES, seed=3).x
    only = input_name(path)
    samples = save_samples(folder / "samples.npz", {only: images[:CALIBRATION]})
    options = ("--calibration", str(CALIBRATION), "--no-evaluate", "--no-benchmark", "--keep-all")
    ours = convert(path, folder, "--data", samples, *options)
    file = ours.extract(INT8, folder)
    if file is None:
        return ours.verdict if ours.status else f"no {INT8}: it would not be faster"
    variant = next(one for one in Bundle.open(ours.bundle).manifest.variants if one.name == INT8)
    model = read_file(file)
    names, _ = border_names(model)
    (binding,) = variant.inputs
    feeds = [np.ascontiguousarray(images[CALIBRATION + at :][:1]) for at in range(IMAGES)]
    return teacher_force(
        model, [{one: to_file(binding, feed) for one in names.values()} for feed in feeds], kernels=kernels
    )


def line(name: str, code: str, found: Sequence[Taught]) -> None:
    """One row: operators of a kind, or all of them."""
    elements = sum(one.elements for one in found)
    equal = sum(one.elements * one.exact for one in found)
    exact = equal / elements if elements else 1.0
    steps = max(one.steps for one in found)
    worst = min(found, key=lambda one: one.exact)
    met = "met" if steps <= MOST_STEPS and worst.exact >= LEAST_EXACT else "MISSED"
    row((name, code, len(found), elements, steps, f"{100 * exact:.4f} %", f"{100 * worst.exact:.3f} %", met))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", default=list(NETS), metavar="NET", help=", ".join(NETS))
    parser.add_argument("--builtin", action="store_true", help="TFLite's own kernels in the place of XNNPACK's")
    asked = parser.parse_args()
    header("net", "operator", "how many", "elements", "steps at most", "exact", "worst operator", "<= 1 and >= 99.99 %")
    for name, path, folder in each_net(asked.nets, columns=8):
        found = taught(path, folder, BUILTIN if asked.builtin else XNNPACK)
        if isinstance(found, str):
            row((name, found, *["-"] * 6))
            continue
        for code in sorted({one.code for one in found}):
            line(name, code, [one for one in found if one.code == code])
        line(name, "all", found)


if __name__ == "__main__":
    main()
