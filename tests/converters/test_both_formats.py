"""One command makes ONNX and TFLite of every kind of source, and the TFLite files compute what the source does."""

import gc
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from click.testing import CliRunner
from onnx import TensorProto, helper

import lepton_edge as le
from converters.tflite.parse import read_file
from lepton_edge.bundle import Bundle
from lepton_edge.bundle.manifest import Variant
from lepton_edge.cli import main
from lepton_edge.demo import digits
from lepton_edge.errors import UnsupportedOperatorError
from lepton_edge.runtimes import open_session
from tests.converters import models

COUNT = 36
INT8 = 0.2
"""Most RMS error over the standard deviation. The nets here gave 0.007 to 0.042, the pipeline with its steep softmax
0.127; a file with a broken block gives more than 0.7.
"""
Predict = Callable[[np.ndarray], np.ndarray]


class Made(NamedTuple):
    """A source's file, samples for it, and what its own framework says of samples."""

    path: Path
    samples: np.ndarray
    predict: Predict
    output: str


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((COUNT, *shape)).astype(np.float32)


def from_onnx(folder: Path) -> Made:
    onnx.save(models.conv_net(), folder / "net.onnx")
    return Made(folder / "net.onnx", pictures(3, 8, 8), le.load_model(models.conv_net()).predict, "y")


def from_tflite(folder: Path) -> Made:
    """Channels last, as TFLite's own converters write them."""
    path = le.load_model(models.conv_net()).save(folder / "net.tflite", layout="native")

    def predict(x: np.ndarray) -> np.ndarray:
        return np.concatenate([run_tflite(path, [one[None]])[0] for one in x])

    (output,) = (read_file(path).main.tensors[index].name for index in read_file(path).main.outputs)
    return Made(path, pictures(8, 8, 3), predict, output)


def from_pt2(folder: Path) -> Made:
    torch = pytest.importorskip("torch", reason="the extra torch is not installed")
    nn = torch.nn
    torch.manual_seed(0)
    conv = [nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU()]
    module = nn.Sequential(*conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)).eval()
    x = torch.randn(2, 3, 12, 12)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, folder / "net.pt2")

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(module(torch.from_numpy(x)))

    return Made(folder / "net.pt2", pictures(3, 12, 12), predict, "")


def from_keras(folder: Path, suffix: str) -> Made:
    pytest.importorskip("torch", reason="the extra torch is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        keras = pytest.importorskip("keras", reason="the extra torch is not installed")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((12, 12, 3), name="image")
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same")(image)))
    x = layers.ReLU()(layers.Conv2D(32, 3, strides=2, padding="same")(x))
    model = keras.Model(image, layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(folder / f"net{suffix}")

    def predict(x: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(model(x, training=False).detach().cpu())

    return Made(folder / f"net{suffix}", pictures(12, 12, 3), predict, "")


def from_skops(folder: Path) -> Made:
    pytest.importorskip("skl2onnx", reason="the extra sklearn is not installed")
    skops_io = pytest.importorskip("skops.io", reason="the extra sklearn is not installed")
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, labels = load_digits(return_X_y=True)
    pipe = make_pipeline(StandardScaler(), MLPClassifier([128, 64], solver="lbfgs", max_iter=20, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has learnt enough for this test
        pipe.fit(x[:1200], labels[:1200])
    skops_io.dump(pipe, folder / "net.skops")
    return Made(folder / "net.skops", x[-COUNT:].astype(np.float32), pipe.predict_proba, "probabilities")


@pytest.fixture(autouse=True)
def libraries_set_aside() -> Iterator[None]:
    """A conversion collects garbage a dozen times; looking through torch and scikit-learn each time takes seconds."""
    gc.freeze()
    yield
    gc.unfreeze()


SOURCES: Mapping[str, Callable[[Path], Made]] = {
    ".onnx": from_onnx,
    ".tflite": from_tflite,
    ".pt2": from_pt2,
    ".h5": lambda folder: from_keras(folder, ".h5"),
    ".keras": lambda folder: from_keras(folder, ".keras"),
    ".skops": from_skops,
}


def run_tflite(path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """One run in LiteRT itself, as a user of the file would do it."""
    interpreter = Interpreter(str(path), num_threads=1)
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.resize_tensor_input(detail["index"], array.shape)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def convert(source: Path, out: Path, *options: object) -> dict[str, object]:
    """Type the command; what does not depend on the clock is kept."""
    words = ["convert", source, "-o", out, "--json", "--keep-all", "--no-benchmark", *options]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def answers(bundle: Bundle, variant: Variant, samples: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """What a device would get: the bundle's file through its bindings."""
    file = folder / variant.file
    file.write_bytes(bundle.read(variant.file))
    (spec,) = bundle.manifest.signature.inputs
    return open_session(file, bundle.manifest.signature, variant).run_samples({spec.name: samples})


@pytest.mark.parametrize("kind", SOURCES)
def test_one_command_makes_both_formats_of_a_source(kind: str, tmp_path: Path) -> None:
    made = SOURCES[kind](tmp_path)
    gc.freeze()
    np.savez(tmp_path / "data.npz", x=made.samples)
    told = convert(made.path, tmp_path / "o.lep", "--data", tmp_path / "data.npz", "--budget", 100, "--calibration", 20)
    assert told["not_made"] == {}
    bundle = Bundle.open(tmp_path / "o.lep").verify()
    variants = {one.name: one for one in bundle.manifest.variants}
    assert {"float32-onnx", "float32-tflite", "int8-tflite"} <= set(variants)
    assert any(name.startswith("int8-onnx") for name in variants)
    output = made.output or bundle.manifest.signature.outputs[0].name
    want = made.predict(made.samples)
    for name in ("float32-tflite", "int8-tflite"):
        assert variants[name].runtime == "litert"
        got = answers(bundle, variants[name], made.samples, tmp_path)[output]
        assert got.shape == want.shape
        if name == "float32-tflite":
            assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max()
        else:
            assert np.sqrt(np.mean((got - want) ** 2)) <= INT8 * want.std()
    assert variants["int8-tflite"].int8_macs > 0.5


@pytest.mark.filterwarnings("ignore:.*for missing values")
def test_a_forest_has_onnx_alone_and_every_ensemble_is_named(tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx", reason="the extra sklearn is not installed")
    skops_io = pytest.importorskip("skops.io", reason="the extra sklearn is not installed")
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier, VotingClassifier

    x, labels = load_digits(return_X_y=True)
    forests = [(name, RandomForestClassifier(4, max_depth=4, random_state=index)) for index, name in enumerate("ab")]
    skops_io.dump(VotingClassifier(forests, voting="soft").fit(x[:500], labels[:500]), tmp_path / "trees.skops")
    told = convert(tmp_path / "trees.skops", tmp_path / "o.lep", "--trust")
    made = Bundle.open(tmp_path / "o.lep").verify().manifest.variants
    assert {one.format for one in made} == {"onnx"}
    reason = told["not_made"]["tflite"]
    assert reason.count("TreeEnsemble") >= 2
    assert "TreeEnsemble" in (tmp_path / "o.report.html").read_text()
    with pytest.raises(UnsupportedOperatorError, match="TreeEnsemble"):
        le.load_model(tmp_path / "trees.skops", trust=True).save(tmp_path / "trees.tflite")
    assert not (tmp_path / "trees.tflite").exists()


def many_net() -> onnx.ModelProto:
    """Two inputs, of which one is integers and the other pictures, and three outputs, one of them integers."""
    rng = np.random.default_rng(2)
    weights = {
        "w": rng.normal(0, 0.2, (16, 3, 3, 3)).astype(np.float32),
        "table": rng.normal(0, 1, (20, 16)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["picture:0", "w"], ["map"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["map"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gather", ["table", "id"], ["e"], "embed"),
        helper.make_node("Add", ["f", "e"], ["sum"], "sum"),
        helper.make_node("ArgMax", ["sum"], ["best"], "best", axis=1, keepdims=0),
    ]
    made = models.model(
        nodes,
        weights,
        inputs={"picture:0": ["n", 3, 6, 10], "id": ["n"]},
        outputs={"sum": ["n", 16], "best": ["n"], "map": ["n", 16, 6, 10]},
    )
    made.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    made.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    return made


BORDER = {
    "picture:0": ((-1, 3, 6, 10), "float32"),
    "id": ((-1,), "int64"),
    "sum": ((-1, 16), "float32"),
    "best": ((-1,), "int64"),
    "map": ((-1, 16, 6, 10), "float32"),
}


def border(path: Path) -> tuple[list[str], list[str], dict[str, tuple[tuple[int, ...], str]]]:
    """Names of inputs and outputs in their order, and each one's shape, with -1 for what is open, and type."""
    main_graph = read_file(path).main
    names = [[main_graph.tensors[index].name for index in each] for each in (main_graph.inputs, main_graph.outputs)]
    tensors = [main_graph.tensors[index] for index in (*main_graph.inputs, *main_graph.outputs)]
    return names[0], names[1], {one.name: (one.signature or one.shape, one.dtype) for one in tensors}


def test_a_saved_file_has_the_names_order_shapes_and_types_of_the_source(tmp_path: Path) -> None:
    model = le.load_model(many_net())
    path = model.save(tmp_path / "x.tflite")
    assert border(path) == (["picture:0", "id"], ["sum", "best", "map"], BORDER)
    (signature,) = read_file(path).signatures
    assert (list(signature.inputs), list(signature.outputs)) == (["picture:0", "id"], ["sum", "best", "map"])
    x, ids = pictures(3, 6, 10)[:5], np.array([3, 0, 19, 7, 7])
    want = model.predict({"picture:0": x, "id": ids})
    for got, name in zip(run_tflite(path, [x, ids]), ("sum", "best", "map"), strict=True):
        np.testing.assert_allclose(got, want[name], rtol=1e-4, atol=1e-5)


def test_a_quantised_model_saves_with_the_same_border_and_a_native_one_with_its_own(
    digits_onnx: Path, held_out: digits.Digits, tmp_path: Path
) -> None:
    x, float_model = held_out.images[:COUNT], le.load_model(digits_onnx)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few samples prove little
        small = le.quantize_model(float_model, data=x, budget=100, formats=("tflite",))
    path = small.save(tmp_path / "small.tflite", variant="int8-tflite")
    assert border(path) == border(float_model.save(tmp_path / "float.tflite"))
    want = float_model.predict(x)
    (got,) = run_tflite(path, [x])
    assert np.sqrt(np.mean((got - want) ** 2)) <= INT8 * want.std()
    native = small.save(tmp_path / "native.tflite", variant="int8-tflite", layout="native")
    (image,), (logits,), tensors = border(native)
    assert tensors[image][0] == (-1, 28, 28, 1)
    assert tensors[logits] == ((-1, 10), "int8")
    codes, own = ([one.code for one in read_file(file).main.operators] for file in (path, native))
    assert codes[-len(own) - 1 :] == [*own, "DEQUANTIZE"]
    assert set(codes[: -len(own) - 1]) <= {"RESHAPE", "QUANTIZE"}  # one channel: moving it moves no bytes


def test_what_is_loaded_from_tflite_saves_as_onnx(tmp_path: Path) -> None:
    made = from_tflite(tmp_path)
    path = le.load_model(made.path).save(tmp_path / "again.onnx")
    again = le.load_model(path)
    want = made.predict(made.samples)
    assert np.abs(again.predict(made.samples) - want).max() <= 2e-5 * np.abs(want).max()
