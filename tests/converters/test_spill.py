"""Weights on disk: the graph reads as before, and its file is the same bytes."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.graph import spill as room
from converters.graph.canonical import canonicalise
from converters.graph.spill import spill
from converters.write.onnx import write_onnx

SIZE = 640


def net() -> ir.Model:
    rng = np.random.default_rng(0)
    shapes = {"w": (SIZE, SIZE), "b": (SIZE,), "v": (SIZE, SIZE)}
    weights = [numpy_helper.from_array(rng.standard_normal(shapes[name]).astype(np.float32), name) for name in shapes]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIZE]) for name in "xy")
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return canonicalise(model, where="net")


def test_spilled_weights_read_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LEAST_BYTES", 1)
    model = net()
    spilled = spill(model, tmp_path / "weights.bin")
    assert (tmp_path / "weights.bin").stat().st_size == 2 * 4 * SIZE * SIZE
    write_onnx(model, tmp_path / "before.onnx")
    write_onnx(spilled, tmp_path / "after.onnx")
    assert (tmp_path / "before.onnx").read_bytes() == (tmp_path / "after.onnx").read_bytes()
    assert sum(isinstance(value.const_value, ir.LazyTensor) for value in spilled.graph.initializers.values()) == 2
    # One that is left would keep the whole imported message in memory.
    assert not any(isinstance(value.const_value, ir.TensorProtoTensor) for value in spilled.graph.initializers.values())


def test_a_small_graph_stays_in_memory(tmp_path: Path) -> None:
    model = net()
    assert spill(model, tmp_path / "weights.bin") is model
    assert not (tmp_path / "weights.bin").exists()
