"""float16 files: half the bytes, float32 arithmetic, and float32 wherever float16 cannot carry the values."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.ort import session
from converters.write.float16 import to_float16
from converters.write.onnx import write_onnx

RNG = np.random.default_rng(3)
PLAIN = RNG.standard_normal((64, 64)).astype(np.float32)


def product(weight: np.ndarray) -> ir.Model:
    """(batch, K) times (K, N)."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))


def types(model: ir.Model) -> set[str]:
    return {value.dtype.name for value in model.graph.initializers.values() if value.dtype is not None}


def channel(scale: float) -> np.ndarray:
    """One column far smaller than the others."""
    weight = PLAIN.copy()
    weight[:, 5] *= scale
    return weight


CASES = {
    "plain": (PLAIN, "FLOAT16", False),
    "channels a thousand times apart": (channel(1e-3), "FLOAT16", False),
    "a channel that was switched off": (channel(1e-9), "FLOAT16", False),
    "all small": (PLAIN * np.float32(1e-7), "FLOAT16", True),
    "all denormal": (PLAIN * np.float32(1e-40), "FLOAT16", True),
    "a live channel below the smallest float16": (channel(1e-4) * np.float32(1e-2), "FLOAT16", True),
    "above the largest float16": (PLAIN * np.float32(1e5), "FLOAT16", True),
    "near the largest float32": (PLAIN * np.float32(5e37), "FLOAT16", True),
    "Inf": (np.where(PLAIN > 3, np.inf, PLAIN).astype(np.float32), "FLOAT", False),
    "NaN": (np.where(PLAIN > 3, np.nan, PLAIN).astype(np.float32), "FLOAT", False),
    "few": (PLAIN[:8, :8].copy(), "FLOAT", False),
}
"""Weights, the type that they are stored in, whether each channel has a power of two."""


@pytest.mark.parametrize(("weight", "kind", "scaled"), CASES.values(), ids=CASES)
def test_weights_are_float16_where_it_carries_them(weight: np.ndarray, kind: str, scaled: bool) -> None:
    graph = to_float16(product(weight)).graph
    held = {name: value.const_value.numpy() for name, value in graph.initializers.items() if value.const_value}
    largest = max(graph.initializers.values(), key=lambda value: value.const_value.size if value.const_value else 0)
    assert largest.dtype is not None
    assert largest.dtype.name == kind
    assert ("w_scale" in held) == scaled
    if kind == "FLOAT":
        assert list(held) == ["w"]
        return
    back = held["w_f16"].astype(np.float32) * held.get("w_scale", np.float32(1))
    alive = np.abs(weight).max(axis=0) > 1e-5 * np.abs(weight).max()
    lost = np.sqrt(
        np.square(back - weight, dtype=np.float64).sum(axis=0) / np.square(weight, dtype=np.float64).sum(axis=0)
    )
    assert (lost[alive] < 2**-7).all()


def test_the_file_is_half_and_computes_the_same(tmp_path: Path) -> None:
    model = product(RNG.standard_normal((256, 512)).astype(np.float32))
    write_onnx(model, tmp_path / "float.onnx")
    write_onnx(to_float16(model), tmp_path / "half.onnx")
    assert (tmp_path / "half.onnx").stat().st_size < 0.51 * (tmp_path / "float.onnx").stat().st_size
    x = RNG.standard_normal((8, 256)).astype(np.float32)
    one, two = (
        session(tmp_path / name, optimised=tmp_path / "folded.onnx").run(None, {"x": x})[0]
        for name in ("float.onnx", "half.onnx")
    )
    assert two.dtype == np.float32
    assert np.abs(one - two).max() < 1e-3 * np.abs(one).max()
    # The Cast is done at load.
    assert [node.op_type for node in onnx.load(tmp_path / "folded.onnx").graph.node] == ["MatMul"]


def test_scales_of_quantised_tensors_and_outputs_stay_float32() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], "weights", axis=0),
        helper.make_node("Add", ["x", "w"], ["y"], "add"),
        helper.make_node("Add", ["x", "shown"], ["z"], "again"),
    ]
    weights = {
        "q": np.ones((512, 2), np.int8),
        "s": np.full(512, 0.1, np.float32),
        "shown": np.ones((512, 2), np.float32),
    }
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [info("x", TensorProto.FLOAT, [512, 2])],
        [info(name, TensorProto.FLOAT, [512, 2]) for name in ("y", "z", "shown")],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    assert types(to_float16(model)) == {"FLOAT", "INT8"}


def test_a_weight_read_twice_is_held_once_and_the_callers_model_stays() -> None:
    model = product(PLAIN)
    node = ir.Node("", "MatMul", [model.graph[0].outputs[0], model.graph.initializers["w"]], name="again")
    model.graph.append(node)
    made = to_float16(model)
    assert [node.op_type for node in made.graph] == ["Cast", "MatMul", "MatMul"]
    assert types(model) == {"FLOAT"}
    assert len(model.graph) == 2
