"""TFLite files read into ONNX, beside LiteRT on the files: those in shared/data and those of mediapipe 0.10.21.

    python benchmarks/reader.py [WORD ...]      only files whose names hold one of the words

Float: the largest difference over the largest output, ONNX Runtime on what was read against LiteRT on the file, with
each of LiteRT's two kernel sets, and beside them how far these are from each other: one net (pose_landmark) blows
rounding up so much that they do not agree. The nearer one must be within 1e-3 where weights are float16, else within
1e-4. A file with
int8 weights and float activations is compared with the same file whose weights are floats: LiteRT rounds activations
while it runs such a file, to other steps each time.
Quantised: every operator alone on its inputs of whole runs (converters/measure/teacher.py): at most 1 step from
XNNPACK, 99.99 % of elements equal; end to end, where there are labels, top-1 within 1.0 point, and the golden ratio
(RMS over standard deviation) between ORT and LiteRT at most 1.5 times that between LiteRT's two kernel sets.
Written again: read, written by converters/tflite/pack.py, and run: the outputs' bits are the same.
"""

import argparse
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from ours import header, row
from subjects import DATA
from wheels import wheel

from converters.importers.tflite.convert import border_names, to_onnx
from converters.importers.tflite.reference import is_hybrid, unpacked
from converters.importers.tflite.scope import is_steps
from converters.measure.teacher import teacher_force
from converters.ort import options
from converters.tflite.model import TfliteModel
from converters.tflite.pack import write_file
from converters.tflite.parse import read_file
from lepton_edge.bundle.golden import distance
from lepton_edge.errors import UnsupportedOperatorError
from lepton_edge.runtimes import runtimes

Arrays = dict[str, np.ndarray]
WHEEL = "mediapipe==0.10.21"
RUNS, FORCED = 16, 4
KERNELS = ("XNNPACK", "builtin")
FLOAT_LIMIT, HALF_LIMIT = 1e-4, 1e-3
STEPS, EXACT, RATIO, POINTS = 1, 0.9999, 1.5, 1.0


class Labelled(NamedTuple):
    """Inputs of a quantised file in its own steps, and their classes."""

    x: np.ndarray
    y: np.ndarray


def labelled(name: str) -> Labelled | None:
    """What lies beside the files of MLPerf Tiny, by the shape of their inputs."""
    sets = {"kws": ("kws01_mfcc_int8.npz", 0), "Resnet": ("cifar10_jpegdecoded_1000_u8.npz", 128)}
    for word, (file, offset) in sets.items():
        if word in name and (DATA / "mlperf-tiny" / file).exists():
            with np.load(DATA / "mlperf-tiny" / file) as arrays:
                return Labelled((arrays["x"].astype(np.int16) - offset).astype(np.int8), arrays["y"])
    return None


def files(words: Sequence[str], folder: Path) -> Iterator[Path]:
    found = sorted(DATA.rglob("*.tflite")) if DATA.exists() else []
    with zipfile.ZipFile(wheel(WHEEL)) as archive:
        inside = [name for name in archive.namelist() if name.endswith(".tflite")]
        found += [Path(archive.extract(name, folder)) for name in sorted(inside)]
    yield from (path for path in found if not words or any(word in path.name for word in words))


def inputs_of(model: TfliteModel, name: str) -> list[Arrays]:
    """Real inputs where there are some that fit, photographs for pictures, else numbers between 0 and 1."""
    names, _ = border_names(model)
    known = labelled(name)
    photos = sorted((DATA / "imagenet-dev250").glob("*.jpg"))[:: max(1, 250 // RUNS)]
    rng = np.random.default_rng(0)
    made = []
    for run in range(RUNS):
        one = {}
        for index, border in names.items():
            tensor = model.main.tensors[index]
            array = rng.random(tensor.shape, dtype=np.float32)
            if known is not None and tensor.shape[1:] == known.x.shape[1:]:
                array = known.x[run : run + 1]
                if tensor.dtype == "float32":
                    array = real_input(array, name)
            elif len(tensor.shape) == 4 and tensor.shape[3] == 3 and run < len(photos):
                array = photo(photos[run], tensor.shape[1:3])
            one[border] = array.astype(tensor.dtype)
        made.append(one)
    return made


def real_input(steps: np.ndarray, name: str) -> np.ndarray:
    """Steps of the inputs of kws01 as numbers, pixels from 0 to 255 otherwise."""
    if "kws" in name:
        return (steps.astype(np.float32) - 83) * np.float32(0.5847029)
    return steps.astype(np.float32) + 128


def photo(path: Path, size: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as file:
        image = file.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)[None] / 255


def in_litert(path: Path, inputs: Sequence[Arrays], provider: str, outputs: Sequence[str]) -> list[Arrays]:
    executor = runtimes()["litert"].load(path, threads=1, provider=provider)
    return [{name: executor.execute(one)[name] for name in outputs} for one in inputs]


def in_ort(model: TfliteModel, inputs: Sequence[Arrays], *, optimise: bool) -> list[Arrays]:
    graph = to_onnx(model, where="file", open_axes=False)
    how = options(threads=1, optimise=optimise)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), how, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return [dict(zip(names, session.run(names, one), strict=True)) for one in inputs]


def apart(got: Sequence[Arrays], want: Sequence[Arrays]) -> float:
    """The largest difference of an output over its largest value, over all runs."""
    worst = 0.0
    for name in want[0]:
        a, b = (np.stack([one[name] for one in many]).astype(np.float64) for many in (got, want))
        worst = max(worst, float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)))
    return worst


def golden(a: Sequence[Arrays], b: Sequence[Arrays]) -> float:
    def joined(many: Sequence[Arrays]) -> Mapping[str, np.ndarray]:
        return {name: np.concatenate([one[name] for one in many]).astype(np.float32) for name in many[0]}

    return distance(joined(a), joined(b))


def judge(path: Path, folder: Path) -> None:
    """One row."""
    model = read_file(path)
    kind = kind_of(model)
    head = [path.name, kind, len(model.main.operators)]
    try:
        to_onnx(model, where=path.name)
    except UnsupportedOperatorError as error:
        row([*head, "-", "-", "-", "-", f"refused: {error.operator} and others by name"])
        return
    inputs, (_, outputs) = inputs_of(model, path.name), border_names(model)
    file = path
    if is_hybrid(model):
        file = folder / "unpacked.tflite"
        write_file(unpacked(model), file)
    xnnpack, builtin = (in_litert(file, inputs, kernels, outputs) for kernels in KERNELS)
    mine = in_ort(model, inputs, optimise=not is_hybrid(model))
    again = written_again(model, path, inputs, outputs, folder)
    if "int8 activations" in kind:
        row([*head, *quantised(model, path, inputs, (mine, xnnpack, builtin), again)])
    else:
        limit = HALF_LIMIT if "float16" in kind else FLOAT_LIMIT
        errors = apart(mine, xnnpack), apart(mine, builtin)
        met = "met" if min(errors) <= limit and again else "MISSED"
        text = " / ".join(f"{error:.1e}" for error in errors)
        row([*head, f"{text} (<= {limit:g})", f"{apart(builtin, xnnpack):.1e}", "-", bits(same=again), met])


def kind_of(model: TfliteModel) -> str:
    tensors = model.main.tensors
    if any(is_steps(one) and one.data is None for one in tensors):
        return "int8 activations"
    if is_hybrid(model):
        return "int8 weights"
    return "float16 weights" if any(one.dtype == "float16" for one in tensors) else "float32"


def bits(*, same: bool) -> str:
    return "the same bits" if same else "OTHER BITS"


def written_again(
    model: TfliteModel, path: Path, inputs: Sequence[Arrays], outputs: Sequence[str], folder: Path
) -> bool:
    """Whether the file, read and written, has the same operators, tensors and scales, and gives the same bits."""
    copy = folder / "again.tflite"
    write_file(model, copy)
    back = read_file(copy)
    same = list(back.main.operators) == list(model.main.operators)
    for one, other in zip(back.main.tensors, model.main.tensors, strict=True):
        scales = one.quantization is None or one.quantization.same(other.quantization)
        same &= (one.name, one.shape, one.dtype) == (other.name, other.shape, other.dtype) and scales
        same &= one.data is None or np.array_equal(np.asarray(one.data), np.asarray(other.data))
    for kernels in KERNELS:
        a, b = (in_litert(file, inputs[:4], kernels, outputs) for file in (path, copy))
        same &= all(np.array_equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in outputs)
    return bool(same)


def quantised(
    model: TfliteModel, path: Path, inputs: Sequence[Arrays], runs: Sequence[Sequence[Arrays]], again: bool
) -> list[str]:
    taught = teacher_force(model, inputs[:FORCED])
    steps, exact = max(one.steps for one in taught), min(one.exact for one in taught)
    mine, xnnpack, builtin = runs
    ratio, own = golden(xnnpack, mine), golden(xnnpack, builtin)
    good = steps <= STEPS and exact >= EXACT and again
    text = f"{ratio:.3f} / {own:.3f}"
    known = labelled(path.name)
    if known is None:
        good &= ratio <= RATIO * own
    else:
        (border,), (output,) = border_names(model)[0].values(), border_names(model)[1]
        every = [{border: one[None]} for one in known.x]
        answers = in_ort(model, every, optimise=True), in_litert(path, every, "XNNPACK", [output])
        scores = [100 * float(np.mean([one[output].argmax() for one in many] == known.y)) for many in answers]
        good &= abs(scores[0] - scores[1]) <= POINTS
        text += f"; top-1 {scores[0]:.1f} / {scores[1]:.1f}"
    forced = f"{len(taught)} operators, <= {steps} step, >= {100 * exact:.3f} %"
    return [forced, "-", text, bits(same=again), "met" if good else "MISSED"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="WORD")
    words = parser.parse_args().words
    header(
        "file", "kind", "operators", "ORT against LiteRT's XNNPACK / builtin; each operator alone",
        "XNNPACK against builtin", "ratio ORT / own; top-1 ORT / LiteRT", "written again", "",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for path in files(words, Path(folder)):
            judge(path, Path(folder))


if __name__ == "__main__":
    main()
