"""Calibration against ONNX Runtime run by hand, its refusals, and that its memory does not grow with the samples."""

import tracemalloc
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.calibrate import calibrate, runner
from converters.data.dataset import Dataset, Subset
from converters.data.open import open_data
from converters.graph.signature import read_signature
from converters.ort import session
from lepton_edge.bundle.binding import Arrays
from lepton_edge.errors import DataError, ModelError, UsageError
from tests.converters import models

OPSET = 20


def as_ir(proto: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def net() -> onnx.ModelProto:
    return models.conv_net(opset=OPSET)


def dataset(proto: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> Dataset:
    return open_data(arrays, read_signature(proto, where="net"))


def by_hand(proto: onnx.ModelProto, samples: Sequence[Arrays]) -> dict[str, np.ndarray]:
    """Every tensor of every node over all samples, without optimisations."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    names = [name for node in copy.graph.node for name in node.output if name]
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    one = session(copy.SerializeToString(), optimise=False)
    runs = [one.run(names, sample) for sample in samples]
    return {name: np.concatenate([run[at].ravel() for run in runs]) for at, name in enumerate(names)}


class Made:
    """Samples that are made when they are asked for."""

    labels = None

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def inputs(self, index: int) -> Arrays:
        return {"x": np.random.default_rng(index).standard_normal((1, 3, 8, 8), dtype=np.float32)}

    def describe(self, index: int) -> str:
        return f"sample {index}"


def test_statistics_are_those_of_running_the_model_by_hand() -> None:
    data = Made(20)
    found = calibrate(as_ir(net()), data)
    values = by_hand(net(), [data.inputs(index) for index in range(20)])
    values["x"] = np.concatenate([data.inputs(index)["x"].ravel() for index in range(20)])
    assert set(found) == set(values)
    assert (found.samples, found.warnings) == (20, ())
    for name, histogram in found.items():
        assert histogram.count == histogram.seen == values[name].size
        assert histogram.minimum == pytest.approx(float(values[name].min()), rel=1e-4, abs=1e-5)
        assert histogram.maximum == pytest.approx(float(values[name].max()), rel=1e-4, abs=1e-5)
        assert histogram.std() == pytest.approx(float(values[name].std()), rel=0.01)
        assert histogram.quantile(0.5) == pytest.approx(float(np.median(values[name])), rel=0.01, abs=0.01)


def test_groups_of_tensors_give_the_same_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = as_ir(net()), Made(5)
    told: list[tuple[int, int]] = []
    whole = calibrate(model, data)
    monkeypatch.setattr(runner, "GROUP_BYTES", 2048)
    monkeypatch.setattr(runner, "MOST_BYTES", 2048)
    parted = calibrate(model, data, progress=lambda stage, done, total: told.append((done, total)))
    # Fused kernels may round differently from those of another session.
    for name, histogram in whole.items():
        assert parted[name].seen == histogram.seen
        assert parted[name].maximum == pytest.approx(histogram.maximum, rel=1e-5)
    passes, rest = divmod(told[-1][1], 5)
    assert passes > 2
    assert rest == 0
    assert told == [(done, told[-1][1]) for done in range(1, told[-1][1] + 1)]


def test_two_runs_and_another_order_give_the_same_statistics() -> None:
    model, data = as_ir(net()), Made(30)
    first = calibrate(model, data)
    assert calibrate(model, data) == first
    turned = calibrate(model, Subset(data, range(29, -1, -1)))
    assert turned.histograms == first.histograms


def test_halves_merge_to_the_whole() -> None:
    model, data = as_ir(net()), Made(10)
    halves = [calibrate(model, Subset(data, part)) for part in (range(5), range(5, 10))]
    assert halves[0].merge(halves[1]) == calibrate(model, data)


def test_the_model_is_left_as_it_was() -> None:
    model = as_ir(net())
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    calibrate(model, Made(2))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_only_the_tensors_asked_for() -> None:
    model = as_ir(net())
    assert list(calibrate(model, Made(2), tensors=["r", "x"])) == ["x", "r"]
    assert list(calibrate(model, Made(2), tensors=["x"])) == ["x"]
    with pytest.raises(UsageError, match=r"net.onnx: 'nothing' is no float tensor"):
        calibrate(model, Made(2), tensors=["nothing"], where="net.onnx")


def test_integer_tensors_are_left_out_and_open_sizes_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = models.text_net()
    proto.opset_import[0].version = 17
    data = dataset(proto, {"ids": np.random.default_rng(0).integers(0, 50, (4, 6))})
    bare = ir.from_proto(proto)  # nobody inferred a shape or type
    monkeypatch.setattr(runner, "GROUP_BYTES", 1)
    monkeypatch.setattr(runner, "MOST_BYTES", 1)
    found = calibrate(bare, data)
    assert set(found) == {"e", "m", "y"}
    assert found["e"].seen == 4 * 6 * 64


def dynamic_net() -> onnx.ModelProto:
    nodes = [helper.make_node("Relu", ["x"], ["r"], "relu"), helper.make_node("ReduceMean", ["r", "axes"], ["y"], "m")]
    shapes: dict[str, list[int | str]] = {"x": ["batch", "length", 4]}
    weights = {"axes": np.array([1], np.int64)}
    return models.model(nodes, weights, inputs=shapes, outputs={"y": ["batch", 1, 4]}, opset=OPSET)


def test_samples_of_different_lengths() -> None:
    class Lengths(Made):
        def inputs(self, index: int) -> Arrays:
            return {"x": np.full((1, index + 1, 4), index - 3, np.float32)}

    found = calibrate(as_ir(dynamic_net()), Lengths(6))
    assert found["r"].seen == 4 * sum(range(1, 7))
    assert (found["x"].minimum, found["x"].maximum, found["r"].minimum) == (-3, 2, 0)


def test_memory_does_not_grow_with_the_samples() -> None:
    model = as_ir(net())
    peaks = []
    for count in (20, 400):
        tracemalloc.start()
        calibrate(model, Made(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= 1.1 * peaks[0]


def test_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="no calibration samples"):
        calibrate(as_ir(net()), Made(0))


def test_one_sample_and_equal_samples_give_warnings() -> None:
    one = calibrate(as_ir(net()), Made(1))
    assert len(one.warnings) == 1
    assert "one calibration sample" in one.warnings[0]
    equal = calibrate(as_ir(net()), Subset(Made(1), [0, 0, 0]))
    assert "all 3 calibration samples are equal" in equal.warnings[0]


def test_a_constant_input_gives_a_warning() -> None:
    data = dataset(net(), {"x": np.full((3, 3, 8, 8), 0.5, np.float32)})
    assert "input 'x' is 0.5 throughout the calibration data" in calibrate(as_ir(net()), data).warnings


def test_samples_of_the_wrong_shape_are_refused_by_the_data() -> None:
    with pytest.raises(DataError, match="shape"):
        dataset(net(), {"x": np.zeros((2, 3, 9, 8), np.float32)})


def chain(*operators: str) -> onnx.ModelProto:
    """One-input operators in a row: (batch, 4) -> (batch, 4)."""
    names = ["x", *(f"t{at}" for at in range(1, len(operators))), "y"]
    nodes = [helper.make_node(op, [names[at]], [names[at + 1]], f"{op}_{at}") for at, op in enumerate(operators)]
    return models.model(nodes, {}, inputs={"x": ["batch", 4]}, outputs={"y": ["batch", 4]}, opset=OPSET)


def four(value: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[1, 1, 1, 1], [1, value, 1, 1]], np.float32)}


def test_a_model_that_gives_nan_is_refused_with_the_first_tensor_and_the_sample() -> None:
    proto = chain("Tanh", "Sqrt", "Exp", "Neg")
    with pytest.raises(ModelError) as caught:
        calibrate(as_ir(proto), dataset(proto, four(-5)), where="net.onnx")
    assert "net.onnx" in str(caught.value)
    assert "tensor 't2' of node 'Sqrt_1'" in str(caught.value)
    assert "sample 1" in str(caught.value)


def test_infinity_inside_that_the_outputs_do_not_see_is_a_warning() -> None:
    """As scores masked with -Inf are: the softmax after them is finite."""
    proto = chain("Log", "Softmax")
    found = calibrate(as_ir(proto), dataset(proto, four(0)))
    assert found["t1"].not_finite == 1
    assert found["t1"].first_not_finite == 1
    assert len(found.warnings) == 1
    assert "tensor 't1' of node 'Log_0' holds NaN or Inf, first in sample 1" in found.warnings[0]


def test_data_that_are_not_finite_are_refused() -> None:
    class Bad(Made):
        def inputs(self, index: int) -> Arrays:
            return {"x": np.full((1, 3, 8, 8), np.nan if index else 1, np.float32)}

    with pytest.raises(DataError, match="sample 1: input 'x' holds NaN or Inf"):
        calibrate(as_ir(net()), Bad(2))


def test_a_model_that_onnx_runtime_does_not_take_is_refused_by_name() -> None:
    proto = chain("Relu")
    proto.graph.node[0].op_type = "Nonsense"
    with pytest.raises(ModelError, match=r"net.onnx: ONNX Runtime cannot load it"):
        calibrate(ir.from_proto(proto), dataset(proto, four(1)), where="net.onnx")


def test_a_run_that_fails_is_refused_by_name() -> None:
    node = helper.make_node("Gather", ["table", "ids"], ["y"], "g")
    table = numpy_helper.from_array(np.ones((5, 2), np.float32), "table")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1, 2])],
        [table],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    data = dataset(proto, {"ids": np.array([[1], [99]])})
    with pytest.raises(ModelError, match=r"net.onnx: ONNX Runtime failed"):
        calibrate(as_ir(proto), data, where="net.onnx")
