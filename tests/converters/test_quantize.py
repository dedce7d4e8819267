"""The files of every profile, made from one source: what they hold, what they compute, what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from converters.data.dataset import Dataset
from converters.data.npz import from_arrays
from converters.importers import import_model
from converters.quantize.artifacts import How, make_artifacts
from converters.quantize.weights import correct_bias, quantize_weights
from converters.source import Source
from lepton_edge.errors import ModelError
from tests.converters import models
from tests.converters.quantised import net, relative_error, run

Net = Callable[[], onnx.ModelProto]


def calibration(source: Source, count: int = 24) -> Dataset:
    return from_arrays(models.samples(count), source.signature, where="calibration")


@pytest.fixture(scope="module")
def source() -> Source:
    return import_model(models.conv_net())


@pytest.mark.parametrize("opset", [11, 12, 17, 20])
def test_files_of_any_opset_become_int8_that_computes_about_the_same(opset: int, tmp_path: Path) -> None:
    source = import_model(models.conv_net(opset=opset))
    made = make_artifacts(source, calibration(source), tmp_path)
    x = models.samples(8, seed=5)["x"]
    plain, *quantised = (run(artifact.path, x)[0] for artifact in made.artifacts)
    assert quantised
    assert all(relative_error(one, plain) < 0.05 for one in quantised)


def test_files_name_the_oldest_runtime_that_takes_them(source: Source, tmp_path: Path) -> None:
    made = make_artifacts(source, calibration(source), tmp_path)
    assert all(artifact.min_runtime for artifact in made.artifacts)
    model = onnx.load(made.artifacts[1].path)
    assert model.opset_import[0].version == 13
    assert model.ir_version <= 8


def test_batch_norm_is_folded_before_anything_is_quantised(source: Source, tmp_path: Path) -> None:
    made = make_artifacts(source, calibration(source), tmp_path)
    for artifact in made.artifacts:
        assert "BatchNormalization" not in {node.op_type for node in onnx.load(artifact.path).graph.node}


def test_equal_model_and_data_give_equal_bytes(source: Source, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(make_artifacts(source, calibration(source), tmp_path / name).artifacts)
    assert [artifact.read() for artifact in made[0]] == [artifact.read() for artifact in made[1]]


def test_nan_in_calibration_is_an_error_and_not_a_silent_layer(tmp_path: Path) -> None:
    net = models.conv_net()
    poisoned = numpy_helper.to_array(net.graph.initializer[0]).copy()
    poisoned[0] = np.nan
    net.graph.initializer[0].CopyFrom(numpy_helper.from_array(poisoned, "w"))
    source = import_model(net)
    with pytest.raises(ModelError, match="NaN or Inf"):
        make_artifacts(source, calibration(source), tmp_path)


def quantised_net() -> onnx.ModelProto:
    net = models.conv_net()
    node = onnx.helper.make_node("QuantizeLinear", ["y", "scale", "zero"], ["steps"], "quantise")
    net.graph.node.append(node)
    net.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "scale"))
    net.graph.initializer.append(numpy_helper.from_array(np.uint8(128), "zero"))
    net.graph.output[0].name = "steps"
    net.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    return net


NOTHING: dict[str, tuple[Net, str, str]] = {
    "no weights": (models.no_weights_net, "float32-onnx", "nothing to quantise"),
    "quantised already": (quantised_net, "int8-onnx", "quantised already"),
    "float16": (models.half_net, "float16-onnx", "int8 from float16 comes later"),
}


@pytest.mark.parametrize(("net", "name", "says"), NOTHING.values(), ids=NOTHING)
def test_where_there_is_nothing_to_quantise_the_source_stands_alone(
    net: Net, name: str, says: str, tmp_path: Path
) -> None:
    source = import_model(net())
    shape = [1 if isinstance(size, str) else size for size in source.signature.inputs[0].shape]
    x = np.random.default_rng(0).standard_normal((8, *shape[1:])).astype(np.float32)
    made = make_artifacts(source, from_arrays({"x": x}, source.signature, where="data"), tmp_path)
    assert [artifact.name for artifact in made.artifacts] == [name]
    assert says in made.reason


def test_weights_that_would_not_shrink_are_left_alone(tmp_path: Path) -> None:
    made = make_artifacts(import_model(models.half_net()), None, tmp_path)
    assert len(made.artifacts) == 1
    tiny = import_model(models.tiny_net())
    made = make_artifacts(tiny, None, tmp_path)
    assert len(made.artifacts) == 1
    assert "nothing to quantise" in made.reason


def test_precision_16_halves_the_file(tmp_path: Path) -> None:
    source = import_model(models.lstm_net())
    made = make_artifacts(source, None, tmp_path, how=How(precision="16"))
    plain, half = made.artifacts
    assert half.precision == "float16"
    assert half.size < 0.65 * plain.size
    x = np.random.default_rng(0).standard_normal((4, 5, 16)).astype(np.float32)
    assert relative_error(run(half.path, x)[0], run(plain.path, x)[0]) < 0.01


def test_a_bias_makes_up_for_what_its_weights_lose_on_average() -> None:
    """Against the mean input, layers with corrected biases give what the float layers give."""
    rng = np.random.default_rng(0)
    for shape, axis, channels in (((6, 4, 3, 3), 0, 4), ((6, 1, 3, 3), 0, 6), ((6, 2, 1, 1), 0, 4), ((5, 7), 1, 5)):
        weights = rng.normal(0, 1, shape).astype(np.float32)
        mean, bias = rng.uniform(0, 2, channels).astype(np.float32), np.zeros(shape[axis], np.float32)
        made = quantize_weights(weights, axis=axis)
        scale = made.scale.reshape([-1 if index == axis else 1 for index in range(len(shape))])
        corrected = correct_bias(bias, weights, made, mean, axis=axis)
        groups = channels // shape[1] if axis == 0 else 1
        wanted = on_constant(weights, mean, axis, groups)
        got = on_constant(made.steps * scale, mean, axis, groups) + corrected
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
        assert np.abs(corrected).max() > 0


def on_constant(weights: np.ndarray, mean: np.ndarray, axis: int, groups: int) -> np.ndarray:
    """What a layer gives in the middle of an image (or for a row) whose channels are constant."""
    if axis == 1:
        return mean @ weights
    parts = np.split(weights, groups), np.split(mean, groups)
    return np.concatenate([np.einsum("oihw,i->o", part, values) for part, values in zip(*parts, strict=True)])


def test_int8_keeps_the_mean_of_what_it_computes(source: Source, tmp_path: Path) -> None:
    made = make_artifacts(source, calibration(source, 60), tmp_path)
    x = models.samples(60)["x"]
    plain, *quantised = (run(artifact.path, x)[0] for artifact in made.artifacts)
    for one in quantised:
        assert np.abs((one - plain).mean(axis=0)).max() < 0.02 * plain.std()


def test_a_product_over_the_last_of_four_axes_has_its_means_there(tmp_path: Path) -> None:
    """ConvNeXt's layers: images turned channels-last, and a matrix product over the channels."""
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 2, 3, 1]),
        onnx.helper.make_node("MatMul", ["t", "w"], ["p"], "product"),
        onnx.helper.make_node("Add", ["p", "b"], ["y"], "bias"),
    ]
    weights = {"w": rng.normal(0, 0.2, (8, 96)).astype(np.float32), "b": rng.normal(0, 1, 96).astype(np.float32)}
    source = import_model(net(nodes, weights))
    x = rng.uniform(0, 2, (24, 8, 10, 10)).astype(np.float32)
    made = make_artifacts(source, from_arrays({"x": x}, source.signature, where="data"), tmp_path)
    plain, *others = (run(artifact.path, x)[0] for artifact in made.artifacts)
    assert all(relative_error(one, plain) < 0.03 for one in others)
