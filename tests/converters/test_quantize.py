"""Quantised graphs: what they hold, what they compute, and that nothing about them is left to chance."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from converters.data.dataset import Dataset
from converters.data.npz import from_arrays
from converters.graph.macs import int8_share
from converters.importers import import_model
from converters.quantize.artifacts import make_artifacts
from converters.quantize.dynamic import quantize_dynamic, symmetric
from converters.quantize.prepare import prepare
from converters.quantize.profiles import STATIC, X86_AVX2, X86_VNNI, native_static, runs_right, saturates
from converters.quantize.static import quantize_static
from converters.quantize.unsigned import with_unsigned_weights
from converters.source import Source
from lepton_edge.errors import ModelError
from tests.converters import models

Net = Callable[[], onnx.ModelProto]


def calibration(source: Source, count: int = 24) -> Dataset:
    return from_arrays(models.samples(count), source.signature, where="calibration")


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def evaluate_by_definition(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """ONNX's own reference; it knows DequantizeLinear from opset 19 on, which means the same there."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.opset_import[0].version = 21
    return ReferenceEvaluator(copy).run(None, feeds)[0]


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(np.mean((got - wanted) ** 2)) / np.std(wanted))


@pytest.fixture(scope="module")
def source() -> Source:
    return import_model(models.conv_net())


@pytest.fixture(scope="module")
def signed(source: Source) -> onnx.ModelProto:
    return quantize_static(prepare(source), calibration(source), where="net")


def weights_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) > 1}


def test_batch_norm_is_folded_before_anything_is_quantised(source: Source) -> None:
    prepared = prepare(source)
    assert "BatchNormalization" not in {node.op_type for node in prepared.graph.node}
    x = models.samples(4)
    np.testing.assert_allclose(run(prepared, x), run(source.model, x), rtol=1e-4, atol=1e-5)


def test_static_int8_has_u8_activations_and_s8_weights_per_channel(signed: onnx.ModelProto) -> None:
    kinds = {tensor.data_type for tensor in weights_of(signed).values()}
    assert kinds == {TensorProto.INT8}
    values = {tensor.name: tensor for tensor in signed.graph.initializer}
    quantised = [node for node in signed.graph.node if node.op_type == "QuantizeLinear"]
    assert {values[node.input[2]].data_type for node in quantised} == {TensorProto.UINT8}
    readers = {node.input[0]: node for node in signed.graph.node if node.op_type == "DequantizeLinear"}
    channels = {tuple(values[name].dims): list(values[readers[name].input[1]].dims) for name in weights_of(signed)}
    assert channels[8, 3, 3, 3] == [8]


def test_static_int8_computes_about_what_float_does(source: Source, signed: onnx.ModelProto) -> None:
    x = models.samples(50, seed=9)
    assert relative_error(run(signed, x), run(source.model, x)) < 0.1
    assert int8_share(signed) == 1.0


@pytest.mark.parametrize("opset", [9, 11, 13, 18])
def test_opsets_before_per_channel_are_lifted(opset: int) -> None:
    source = import_model(models.conv_net(opset=opset))
    made = quantize_static(prepare(source), calibration(source), where="net")
    x = models.samples(20, seed=9)
    assert relative_error(run(made, x), run(source.model, x)) < 0.1


def test_unsigned_twin_is_the_same_numbers_shifted(signed: onnx.ModelProto) -> None:
    twin = with_unsigned_weights(signed)
    for name, tensor in weights_of(twin).items():
        assert tensor.data_type == TensorProto.UINT8
        was = numpy_helper.to_array(weights_of(signed)[name]).astype(np.int16)
        np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.int16) - 128, was)
    x = models.samples(8)
    np.testing.assert_array_equal(evaluate_by_definition(twin, x), evaluate_by_definition(signed, x))


def test_unsigned_twin_shifts_a_zero_point_that_was_left_out(signed: onnx.ModelProto) -> None:
    short = onnx.ModelProto()
    short.CopyFrom(signed)
    for node in short.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in weights_of(short):
            del node.input[2:]
    x = models.samples(8)
    wanted = evaluate_by_definition(signed, x)
    np.testing.assert_array_equal(evaluate_by_definition(with_unsigned_weights(short), x), wanted)


@pytest.mark.parametrize("net", [models.conv_net, models.text_net], ids=["convolution", "tokens"])
def test_dynamic_int8_computes_about_what_float_does(net: Net) -> None:
    source = import_model(net())
    made = quantize_dynamic(prepare(source), where="net")
    ids = np.random.default_rng(2).integers(0, 50, (30, 6))
    feeds = models.samples(30) if net is models.conv_net else {"ids": ids}
    error = np.concatenate(
        [run(made, {name: array[i : i + 1] for name, array in feeds.items()}) for i in range(30)]
    ) - run(source.model, feeds)
    assert np.sqrt(np.mean(error**2)) / np.std(run(source.model, feeds)) < 0.05


def test_dynamic_int8_leaves_a_weight_that_others_read_alone() -> None:
    net = models.conv_net()
    net.graph.node.append(onnx.helper.make_node("ReduceSum", ["w"], ["total"], "sum", keepdims=0))
    net.graph.node.append(onnx.helper.make_node("Add", ["y", "total"], ["z"], "add"))
    net.graph.output[0].name = "z"
    source = import_model(net)
    x = {"x": models.samples(1)["x"]}
    got = run(quantize_dynamic(prepare(source), where="net"), x)
    assert np.abs(got - run(source.model, x)).max() < 0.1 * np.abs(got).max()


@given(
    weight=arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(-100, 100, width=32)
    ),
    axis=st.integers(0, 1),
)
def test_symmetric_weights_are_within_half_a_step(weight: np.ndarray, axis: int) -> None:
    steps, scale = symmetric(weight, axis=axis)
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    back = steps.astype(np.float64) * scale.reshape(shape)
    assert steps.min() >= -127
    assert (scale > 0).all()
    # A subnormal largest value leaves the scale itself imprecise.
    assert (np.abs(back - weight) <= 0.5001 * scale.reshape(shape) + 1e-42).all()


def test_equal_model_and_data_give_equal_bytes(source: Source, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(make_artifacts(source, calibration(source), tmp_path / name).artifacts)
    assert [artifact.read() for artifact in made[0]] == [artifact.read() for artifact in made[1]]
    plain, again = (quantize_dynamic(prepare(source), where="net").SerializeToString(deterministic=True) for _ in "12")
    assert plain == again


def test_nan_in_calibration_is_an_error_and_not_a_silent_layer() -> None:
    net = models.conv_net()
    poisoned = numpy_helper.to_array(net.graph.initializer[0]).copy()
    poisoned[0] = np.nan
    net.graph.initializer[0].CopyFrom(numpy_helper.from_array(poisoned, "w"))
    source = import_model(net)
    with pytest.raises(ModelError, match=r"NaN or Inf|does not take"):
        quantize_static(prepare(source), calibration(source), where="net")


NOTHING: dict[str, tuple[Net, str, str]] = {
    "no weights": (models.no_weights_net, "float32-onnx", "nothing to quantise"),
    "quantised already": (
        lambda: quantize_static(
            prepare(import_model(models.conv_net())), calibration(import_model(models.conv_net())), where="net"
        ),
        "int8-onnx",
        "quantised already",
    ),
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
    made = make_artifacts(import_model(models.fragile_net()), None, tmp_path)
    assert len(made.artifacts) == 1
    assert "would not make the file smaller" in made.reason or "nothing to quantise" in made.reason


def test_a_recurrent_layer_counts_as_the_float_that_it_is() -> None:
    source = import_model(models.lstm_net())
    x = np.random.default_rng(0).standard_normal((8, 5, 16)).astype(np.float32)
    static = quantize_static(prepare(source), from_arrays({"x": x}, source.signature, where="data"), where="net")
    assert int8_share(static) == 0.0
    dynamic = quantize_dynamic(prepare(source), where="net")
    assert int8_share(dynamic) == 1.0
    assert dynamic.ByteSize() < 0.4 * source.model.ByteSize()
    assert relative_error(run(dynamic, {"x": x[:1]}), run(source.model, {"x": x[:1]})) < 0.05


def test_profiles_know_which_cpu_computes_what_right() -> None:
    vnni, haswell, arm = frozenset({"avx2", "avx512_vnni"}), frozenset({"avx2"}), frozenset({"asimd"})
    assert native_static(flags=vnni, machine="x86_64") is X86_VNNI
    assert native_static(flags=frozenset({"avx2", "avx_vnni"}), machine="x86_64") is X86_VNNI
    assert native_static(flags=haswell, machine="x86_64") is X86_AVX2
    assert native_static(flags=arm, machine="aarch64") is None
    assert [saturates(one, flags=haswell, machine="x86_64") for one in STATIC] == [True, False]
    assert not any(saturates(one, flags=arm, machine="aarch64") for one in STATIC)
    assert not runs_right(X86_VNNI, flags=haswell, machine="x86_64")
