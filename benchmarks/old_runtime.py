"""Files meant for tflite-runtime 2.14: each loaded and run there, in its own environment.

    LEPTON_TFLITE_RUNTIME_PYTHON=PYTHON python benchmarks/old_runtime.py [MODEL ...]

Every model is converted by the command into all forms, with random calibration samples, which serve as well as real
ones to have each kind of file made. Each variant of the bundle that names that runtime computes the
golden inputs in a process of the other Python, and its outputs are held against those of the host, as a device's
self-test does. Without MODEL: the nets of the other tables and the models of ../shared/data.
"""

import argparse
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ours import DATA, NETS, convert, header, net_file, row, save_samples

import lepton_edge as le
from converters.data.random import random_inputs
from lepton_edge.bundle import Bundle
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.golden import distance, read_golden
from lepton_edge.bundle.manifest import Variant
from lepton_edge.runtimes import Session

RUNTIME = "tflite-runtime"
SAMPLES = 24
PYTHON = os.environ.get("LEPTON_TFLITE_RUNTIME_PYTHON", "")
CHILD = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter

one = Interpreter(sys.argv[1], num_threads=1)
one.allocate_tensors()
print("loaded", flush=True)
for line in sys.stdin:
    source, target = line.split()
    fed = np.load(source)
    for details in one.get_input_details():
        if tuple(details["shape"]) != fed[details["name"]].shape:
            one.resize_tensor_input(details["index"], fed[details["name"]].shape)
    one.allocate_tensors()
    for details in one.get_input_details():
        one.set_tensor(details["index"], fed[details["name"]])
    one.invoke()
    np.savez(target, **{details["name"]: one.get_tensor(details["index"]) for details in one.get_output_details()})
    print("done", flush=True)
"""


class Elsewhere:
    """One file in a process of the other Python, as an executor of ours."""

    def __init__(self, file: Path, folder: Path) -> None:
        self._folder = folder
        self._errors = (folder / "errors.txt").open("w+")
        self._process = subprocess.Popen(
            [PYTHON, "-c", CHILD, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._expect("loaded")

    def execute(self, inputs: Arrays) -> Arrays:
        assert self._process.stdin is not None
        np.savez(self._folder / "in.npz", **inputs)
        self._process.stdin.write(f"{self._folder / 'in.npz'} {self._folder / 'out.npz'}\n")
        self._process.stdin.flush()
        self._expect("done")
        with np.load(self._folder / "out.npz") as given:
            return {name: given[name] for name in given.files}

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != word:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError((self._errors.read().strip().splitlines() or ["no message"])[-1])


def models() -> Iterator[Path]:
    """Those of the other tables, as far as they are here."""
    yield from (path for path in map(net_file, NETS) if isinstance(path, Path))
    for pattern in ("*.onnx", "*.h5", "*.keras", "*.tflite"):
        yield from sorted(DATA.rglob(pattern))


def proven(bundle: Bundle, variant: Variant, folder: Path) -> tuple[str, float]:
    """How a variant fares in the other Python: an error's last line or "", and the distance of its outputs."""
    path = folder / Path(variant.file).name
    path.write_bytes(bundle.read(variant.file))
    golden = read_golden(bundle.read("golden.npz"))
    try:
        executor = Elsewhere(path, folder)
    except RuntimeError as cause:
        return str(cause), float("inf")
    try:
        given = Session(executor, bundle.manifest.signature, variant).run_samples(golden.inputs)
    except RuntimeError as cause:
        return str(cause), float("inf")
    finally:
        executor.close()
    return "", distance(golden.expected(variant.name), given)


def samples(path: Path, folder: Path) -> Path:
    """Random calibration samples, for files of int8 need some."""
    signature = le.load_model(path).signature
    return save_samples(folder / "data.npz", random_inputs(signature, SAMPLES, np.random.default_rng(0)))


def measure(path: Path) -> None:
    """Convert one model and print a row for each of its files."""
    with tempfile.TemporaryDirectory(prefix="old-runtime-") as name:
        folder = Path(name)
        data = samples(path, folder)
        ours = convert(path, folder, "--no-benchmark", "--keep-all", "--budget", "100", "--data", data)
        if not ours.bundle.exists():
            row((path.name, f"not converted: {ours.verdict}", "-", "-", "-"))
            return
        bundle = Bundle.open(ours.bundle)
        for variant in bundle.manifest.variants:
            if variant.runtime == RUNTIME:
                error, far = proven(bundle, variant, folder)
                met = "met" if far <= variant.tolerance else "MISSED"
                row((path.name, variant.name, error or "yes", f"{far:.4f}", f"{variant.tolerance:.4f} {met}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    args = parser.parse_args()
    if not PYTHON:
        print(
            "skipped: LEPTON_TFLITE_RUNTIME_PYTHON names no Python with tflite-runtime (.ci/tflite-runtime makes one)"
        )
        return
    header("model", "variant", "loads and runs", "distance", "wanted")
    for path in args.models or models():
        measure(path)


if __name__ == "__main__":
    main()
