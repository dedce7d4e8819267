"""TFLite: what the files are made of, and int8 against float in LiteRT (XNNPACK), one thread.

    python benchmarks/tflite.py [NET ...]

Every net is converted by the command into both formats, without data for judging. The files are looked at and run
as they lie in the bundle: no transpose or requantisation should stand between native inputs and outputs, and
XNNPACK should take all of a file as one partition. The float file's outputs are held against ONNX Runtime's on the
source. The files are timed in five interleaved rounds; a ratio is the median over the rounds of that round's ratio.
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
from ours import NETS, TRAINED, convert, each_net, header, row, save_samples
from timing import Times, input_name, rounds_of

from converters.ort import session
from converters.tflite.parse import read_file
from lepton_edge.bundle import Bundle
from lepton_edge.runtimes import Session, open_session

FLOAT, INT8 = "float32-tflite", "int8-tflite"
LIMITS = {"mobilenet_v2": 2.1, "resnet18": 3.3, TRAINED: 2.1, "mobilenet_v3_small": 1.2, "vit_tiny": 1.4}
CALIBRATION = 100


def moves(path: Path) -> tuple[int, int]:
    """Transposes of more than a view, and changes from one scale to another, in a file."""
    model = read_file(path)
    found: Counter[str] = Counter()
    for operator in model.main.operators:
        kinds = [model.main.tensors[index].dtype for index in (*operator.inputs[:1], *operator.outputs)]
        requantises = operator.code == "QUANTIZE" and kinds[0] == kinds[-1]
        found["requantise" if requantises else operator.code] += 1
    return found["TRANSPOSE"], found["requantise"]


def partitions(path: Path) -> str:
    """How many parts of the graph XNNPACK takes, and the operators that are left outside of them."""
    from ai_edge_litert.interpreter import Interpreter

    one = Interpreter(str(path), num_threads=1)
    one.allocate_tensors()
    operators = one._get_ops_details()  # noqa: SLF001 - there is no other way to see what a delegate took
    taken = [operator for operator in operators if operator["op_name"] == "DELEGATE"]
    inside = {int(index) for operator in taken for index in operator["outputs"]}
    ends = {int(details["index"]) for details in one.get_output_details()}
    return f"{len(taken)}" if ends <= inside else f"{len(taken)}+"


def difference(path: Path, ours: Session, feeds: dict[str, np.ndarray]) -> float:
    """Largest difference between the source in ONNX Runtime and a variant, as a share of the largest output."""
    wanted = session(path).run(None, feeds)
    got = ours.run(feeds)
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(wanted, got.values(), strict=True))


def timed(files: dict[str, Path], bindings: dict[str, dict[str, np.ndarray]]) -> Times:
    """Interleaved rounds of bare `invoke` calls."""
    from ai_edge_litert.interpreter import Interpreter

    calls = {}
    for name, path in files.items():
        one = Interpreter(str(path), num_threads=1)
        one.allocate_tensors()
        for details in one.get_input_details():
            one.set_tensor(details["index"], bindings[name][details["name"]])
        calls[name] = one.invoke
    return rounds_of(calls)


def measure(name: str, path: Path, folder: Path) -> None:
    """Convert one net and print its row."""
    from textures import textures

    from lepton_edge.bundle.binding import to_file

    images = textures(CALIBRATION + 1, seed=3).x
    only = input_name(path)
    samples = save_samples(folder / "samples.npz", {only: images[:CALIBRATION]})
    started = time.perf_counter()
    options = ("--calibration", str(CALIBRATION), "--no-evaluate", "--no-benchmark", "--keep-all")
    ours = convert(path, folder, "--data", samples, *options)
    seconds = time.perf_counter() - started
    files = {one: ours.extract(one, folder) for one in (FLOAT, INT8)}
    if files[FLOAT] is None or files[INT8] is None:
        row((name, ours.verdict, *["-"] * 9))
        return
    feeds = {only: np.ascontiguousarray(images[-1:])}
    manifest = Bundle.open(ours.bundle).manifest
    bindings, worst = {}, 0.0
    for variant in manifest.variants:
        if variant.name in files:
            bindings[variant.name] = {one.tensor: to_file(one, feeds[one.name]) for one in variant.inputs}
        if variant.name == FLOAT:
            worst = difference(path, open_session(files[FLOAT], manifest.signature, variant), feeds)
    times = timed({one: file for one, file in files.items() if file}, bindings)
    ratio, wanted = times.ratio(INT8, FLOAT), LIMITS.get(name, 1.0)
    float_moves, int8_moves = (moves(file) for file in files.values() if file)
    row(
        (
            name,
            f"{worst:.1e}",
            f"{float_moves[0]} / {int8_moves[0]}",
            int8_moves[1],
            f"{partitions(files[FLOAT])} / {partitions(files[INT8])}",
            f"{times.median(FLOAT):.2f}",
            f"{times.median(INT8):.2f}",
            f"{ratio:.2f}x",
            f"{wanted:.1f}x {'met' if ratio >= wanted else 'MISSED'}",
            f"{seconds:.1f}",
            f"{ours.document['peak_rss_mb']:.0f}",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", default=list(NETS), metavar="NET", help=", ".join(NETS))
    header(
        "net",
        "float: diff / max",
        "transposes float / int8",
        "requantisations",
        "XNNPACK partitions",
        "float ms",
        "int8 ms",
        "ratio",
        "wanted",
        "both formats, s",
        "peak MB",
    )
    for name, path, folder in each_net(parser.parse_args().nets, columns=11):
        measure(name, path, folder)


if __name__ == "__main__":
    main()
