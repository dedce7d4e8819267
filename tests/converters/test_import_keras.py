"""Keras files and models: what comes out of the graph is what comes out of the model."""

import json
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from converters.importers import import_model
from converters.source import Source
from lepton_edge.errors import LeptonError, ModelError, NotYetSupportedError, UnsupportedOperatorError, UsageError

pytest.importorskip("torch", reason="the extra torch is not installed")
h5py = pytest.importorskip("h5py", reason="the extra torch is not installed")

SHARED = Path(__file__).parents[3] / "shared" / "data" / "mlperf-tiny"


@pytest.fixture(scope="module")
def keras() -> Iterator[Any]:
    """Keras on torch, whose own deprecation warnings are not ours."""
    patch = pytest.MonkeyPatch()
    patch.setenv("KERAS_BACKEND", "torch")
    module = pytest.importorskip("keras", reason="the extra torch is not installed")
    if module.backend.backend() != "torch":
        pytest.skip("keras was loaded with another backend before")
    yield module
    patch.undo()


@pytest.fixture(autouse=True)
def foreign_warnings() -> Iterator[None]:
    """Building and saving Keras models warns of NumPy's and HDF5's future; importing them must not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="keras")
        yield


def picture_net(keras: Any) -> Any:
    """(batch, 16, 16, 3) -> classes (batch, 4), box (batch, 2)."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same")(image)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    x = layers.DepthwiseConv2D(3)(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.5)(x)
    return keras.Model(
        image, [layers.Dense(4, activation="softmax", name="classes")(x), layers.Dense(2, name="box")(x)]
    )


def saved(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    return path


def ran(source: Source, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(source.to_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def told(model: Any, x: np.ndarray) -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outputs = model(x, training=False)
    many = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [each.detach().cpu().numpy() for each in many]


@pytest.fixture(scope="module")
def picture(keras: Any) -> Any:
    return picture_net(keras)


@pytest.mark.parametrize("kind", [".keras", ".h5", "in memory"])
def test_a_model_gives_what_it_gave(kind: str, picture: Any, tmp_path: Path) -> None:
    source = import_model(picture if kind == "in memory" else saved(picture, tmp_path / f"net{kind}"))
    assert source.format == "keras"
    spec = source.signature.inputs[0]
    assert (spec.name, spec.shape, spec.layout) == ("image", ["batch", 16, 16, 3], "NHWC")
    assert [spec.name for spec in source.signature.outputs] == ["classes", "box"]
    x = np.random.default_rng(0).standard_normal((5, 16, 16, 3)).astype(np.float32)
    for got, want in zip(ran(source, image=x), told(picture, x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert source.reference is not None
    assert list(source.reference({"image": x})) == ["classes", "box"]


def test_the_network_of_keras_2() -> None:
    path = SHARED / "pretrainedResnet.h5"
    if not path.exists():
        pytest.skip("the evaluation data are not on this machine")
    source = import_model(path)
    assert source.signature.inputs[0].shape == ["batch", 32, 32, 3]
    assert not source.notes


def test_an_open_axis_stays_open(keras: Any) -> None:
    layers = keras.layers
    net = keras.Sequential(
        [keras.Input((None,), dtype="int32", name="ids"), layers.Embedding(50, 8), layers.GlobalAveragePooling1D()]
    )
    source = import_model(net)
    assert source.signature.inputs[0].shape == ["batch", "ids_1"]
    ids = np.arange(33, dtype=np.int32).reshape(3, 11)
    np.testing.assert_allclose(ran(source, ids=ids)[0], told(net, ids)[0], rtol=1e-5, atol=1e-6)


def test_a_loop_over_an_open_axis_wants_its_size(keras: Any) -> None:
    net = keras.Sequential([keras.Input((None, 3), name="steps"), keras.layers.SimpleRNN(4), keras.layers.Dense(2)])
    with pytest.raises(ModelError, match=r"--shape steps=\?x16x3"):
        import_model(net)
    assert import_model(net, shapes={"steps": ["?", 5, 3]}).signature.inputs[0].shape[1:] == [5, 3]
    with pytest.raises(UsageError, match="no such input"):
        import_model(net, shapes={"other": [1, 5, 3]})


def test_names_of_layers_and_plain_numbers(keras: Any) -> None:
    """A layer that the exporter names a value of its own after; whole numbers beside floats."""
    steps = keras.Input((10, 6), name="relu")
    y = keras.layers.Conv1D(4, 3, activation="relu", name="conv1d")(2 * steps - 1)
    net = keras.Model(steps, y)
    source = import_model(net)
    assert [spec.name for spec in (*source.signature.inputs, *source.signature.outputs)] == ["relu", "conv1d"]
    x = np.random.default_rng(0).standard_normal((3, 10, 6)).astype(np.float32)
    np.testing.assert_allclose(ran(source, relu=x)[0], told(net, x)[0], rtol=1e-4, atol=1e-5)


def lambda_net(keras: Any) -> Any:
    return keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1, name="plus")])


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_file_is_not_run(suffix: str, keras: Any, tmp_path: Path) -> None:
    path = saved(lambda_net(keras), tmp_path / f"net{suffix}")
    with pytest.raises(UnsupportedOperatorError, match="layer 'plus' is a Lambda: it holds Python code"):
        import_model(path)


def custom_class(config: dict[str, Any]) -> None:
    config["config"]["layers"][1] |= {"module": "os", "class_name": "system", "registered_name": "Package>Mine"}


def deep(config: dict[str, Any]) -> None:
    inner: dict[str, Any] = {}
    for _ in range(400):
        inner = {"config": inner}
    config["config"]["more"] = inner


EDITS: dict[str, tuple[Callable[[dict[str, Any]], None], type[LeptonError], str]] = {
    "a custom class": (custom_class, UnsupportedOperatorError, "custom class 'Package>Mine'"),
    "nested without end": (deep, ModelError, "nested deeper than any model"),
    "a layer that is none": (
        lambda config: config["config"]["layers"][1].update(class_name="Nonsense"), ModelError, "Keras .* cannot load"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "kind", "says"), EDITS.values(), ids=EDITS)
def test_configurations_that_are_refused(
    edit: Callable[[dict[str, Any]], None], kind: type[LeptonError], says: str, picture: Any, tmp_path: Path
) -> None:
    whole = saved(picture, tmp_path / "whole.keras")
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                edit(config)
                data = json.dumps(config).encode()
            new.writestr(name, data)
    with pytest.raises(kind, match=says):
        import_model(path)


def write_cut(picture: Any, path: Path) -> None:
    saved(picture, path)
    path.write_bytes(path.read_bytes()[:3000])


def write_weights(picture: Any, path: Path) -> None:
    picture.save_weights(path.with_suffix(".weights.h5"))
    path.with_suffix(".weights.h5").rename(path)


DAMAGED: dict[str, tuple[str, Callable[[Any, Path], object], str]] = {
    "cut zip": (".keras", write_cut, "a damaged .keras archive"),
    "cut hdf5": (".h5", write_cut, "a damaged HDF5 file"),
    "weights alone": (".h5", write_weights, "it holds weights without a model"),
    "text": (".h5", lambda _, path: path.write_text("hello"), "neither a .keras archive nor an HDF5 file"),
    "absent": (".keras", lambda _, path: None, "No such file"),
    "another zip": (
        ".keras", lambda _, path: zipfile.ZipFile(path, "w").writestr("a", "b") or None, "config.json|damaged"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("suffix", "write", "says"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files(
    suffix: str, write: Callable[[Any, Path], object], says: str, picture: Any, tmp_path: Path
) -> None:
    path = tmp_path / f"net{suffix}"
    write(picture, path)
    with pytest.raises(ModelError, match=says) as error:
        import_model(path)
    assert path.name in str(error.value)


def test_models_without_declared_inputs_or_with_a_fixed_batch(keras: Any) -> None:
    with pytest.raises(ModelError, match="no declared inputs"):
        import_model(keras.Sequential([keras.layers.Dense(2)]))
    fixed = keras.Sequential([keras.Input(batch_shape=(4, 3)), keras.layers.Dense(2)])
    with pytest.raises(NotYetSupportedError, match="fixed batch of 4"):
        import_model(fixed)
    with pytest.raises(UsageError, match="example inputs go with a torch module"):
        import_model(fixed, inputs=(np.ones((4, 3)),))


def legacy_config(layers: list[dict[str, Any]], output: str) -> bytes:
    """What Keras 2 wrote for `tf` functions called on symbolic tensors."""
    for layer in layers:
        layer["config"]["name"] = layer["name"]
    body = {
        "name": "model", "layers": layers,
        "input_layers": [["x", 0, 0]], "output_layers": [[output, 0, 0]],
    }  # fmt: skip
    return json.dumps({"class_name": "Functional", "config": body}).encode()


def operation(name: str, function: str, node: list[Any], kind: str = "TFOpLambda") -> dict[str, Any]:
    return {
        "class_name": kind, "name": name, "inbound_nodes": [node],
        "config": {"trainable": True, "dtype": "float32", "function": function},
    }  # fmt: skip


def test_functions_of_tensorflow_in_an_h5_of_keras_2(keras: Any, tmp_path: Path) -> None:
    """relu6(2 * x + 1) * x, then the first three columns: as hand-written networks of Keras 2 have it."""
    layers = [
        {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
         "config": {"batch_input_shape": [None, 6], "dtype": "float32", "sparse": False, "ragged": False}},
        operation("double", "math.multiply", [["x", 0, 0, {"y": 2.0, "name": None}]]),
        operation("plus", "__operators__.add", [["double", 0, 0, {"y": 1.0, "name": None}]]),
        operation("six", "nn.relu6", [["plus", 0, 0, {}]]),
        operation("swish", "math.multiply", [["six", 0, 0, {"y": ["x", 0, 0], "name": None}]]),
        operation("columns", "__operators__.getitem", [["swish", 0, 0, {"slice_spec": [
            {"start": None, "stop": None, "step": None}, {"start": None, "stop": 3, "step": None}]}]],
            "SlicingOpLambda"),
    ]  # fmt: skip
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = legacy_config(layers, "columns")
        file.attrs["keras_version"] = b"2.9.0"
        file.attrs["backend"] = b"tensorflow"
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [layer["name"].encode() for layer in layers]
        weights.attrs["backend"] = b"tensorflow"
        weights.attrs["keras_version"] = b"2.9.0"
        for layer in layers:
            weights.create_group(layer["name"]).attrs["weight_names"] = np.zeros(0, "S1")
    before = path.read_bytes()
    source = import_model(path)
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    want = (np.clip(2 * x + 1, 0, 6) * x)[:, :3]
    np.testing.assert_allclose(ran(source, x=x)[0], want, rtol=1e-6)
    assert path.read_bytes() == before


CHILD = """
import os, sys, types
os.environ["KERAS_BACKEND"] = "tensorflow"
backend = types.SimpleNamespace(backend=types.SimpleNamespace(backend=lambda: "tensorflow"))
sys.modules["keras"] = backend
import importlib.machinery
backend.__spec__ = importlib.machinery.ModuleSpec("keras", None)
from converters.importers import import_model
from lepton_edge.errors import ModelError
try:
    import_model(sys.argv[1])
except ModelError as error:
    print(error)
"""


def test_keras_on_another_backend_says_what_to_do(picture: Any, tmp_path: Path) -> None:
    path = saved(picture, tmp_path / "net.keras")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert "backend 'tensorflow'" in done.stdout, done.stderr
    assert "KERAS_BACKEND=torch" in done.stdout
