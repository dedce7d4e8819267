"""Operators that TFLite's kernels compute in int8: as ONNX Runtime does between QuantizeLinear and DequantizeLinear."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from converters.ort import session
from converters.tflite.parse import read_file
from converters.write.tflite import write_tflite
from tests.converters.tflite.one_node import KERNELS, Array, litert

SHAPE = (2, 6, 5, 4)
STEP = 0.05
"""Scale of what is written; its zero point is 3."""
RNG = np.random.default_rng(3)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


class Case(NamedTuple):
    """One node with its data inputs' shapes, and its parameters behind them."""

    operator: str
    fed: Sequence[tuple[int, ...]] = (SHAPE,)
    attributes: Mapping[str, Any] = {}
    parameters: Sequence[Array] = ()
    outputs: int = 1


CASES = [
    *(Case(operator, (SHAPE, SHAPE)) for operator in ("Add", "Sub", "Mul", "Max", "Min")),
    *(Case(operator, (SHAPE, (6, 1, 1))) for operator in ("Add", "Sub", "Mul", "Max", "Min")),
    Case("Concat", (SHAPE, SHAPE), {"axis": 1}),
    Case("Split", (SHAPE,), {"axis": 1, "num_outputs": 2}, (), 2),
    Case("Split", (SHAPE,), {"axis": 1}, (ints(2, 4),), 2),
    Case("Slice", (SHAPE,), {}, (ints(1), ints(5), ints(1), ints(2))),
    Case("Pad", (SHAPE,), {}, (ints(0, 0, 1, 1, 0, 0, 1, 1),)),
    Case("Pad", (SHAPE,), {"mode": "reflect"}, (ints(0, 0, 1, 1, 0, 0, 1, 1),)),
    Case("Reshape", (SHAPE,), {}, (ints(2, 30, 4),)),
    Case("Transpose", (SHAPE,), {"perm": [0, 2, 3, 1]}),
    Case("Flatten"),
    Case("Unsqueeze", (SHAPE,), {}, (ints(1),)),
    Case("Expand", ((2, 1, 3),), {}, (ints(2, 4, 3),)),
    Case("Tile", (SHAPE,), {}, (ints(1, 2, 1, 1),)),
    Case("Gather", (SHAPE,), {"axis": 1}, (ints(0, -1, 3),)),
    *(
        Case(operator, (SHAPE,), {"keepdims": keep}, (ints(*axes),))
        for operator in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
        for axes in ((2, 3), (1,))
        for keep in (0, 1)
    ),
]  # fmt: skip


def _net(case: Case) -> onnx.ModelProto:
    """Each input quantised with its own scale; each output quantised with STEP."""
    nodes, weights, names = [], [], []
    for index in range(len(case.fed)):
        name = f"x{index}"
        weights += _scale(name, 0.04 - 0.01 * index, 7 - 12 * index)
        nodes += _there_and_back(name, name)
        names.append(f"{name}_real")
    for index, value in enumerate(case.parameters):
        weights.append(numpy_helper.from_array(value, f"p{index}"))
        names.append(f"p{index}")
    made = [f"r{index}" for index in range(case.outputs)]
    nodes.append(helper.make_node(case.operator, names, made, **case.attributes))
    for name in made:
        weights += _scale(name, STEP, 3)
        nodes += _there_and_back(name, name)
    fed = [helper.make_tensor_value_info(f"x{index}", 1, shape) for index, shape in enumerate(case.fed)]
    outputs = [helper.make_tensor_value_info(f"{name}_real", 1, None) for name in made]
    graph = helper.make_graph(nodes, "net", fed, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _scale(name: str, scale: float, zero_point: int) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(np.array(scale, np.float32), f"{name}_scale"),
        numpy_helper.from_array(np.array(zero_point, np.int8), f"{name}_zero"),
    ]


def _there_and_back(source: str, name: str) -> list[onnx.NodeProto]:
    scales = [f"{name}_scale", f"{name}_zero"]
    return [
        helper.make_node("QuantizeLinear", [source, *scales], [f"{name}_steps"]),
        helper.make_node("DequantizeLinear", [f"{name}_steps", *scales], [f"{name}_real"]),
    ]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.operator}-{index}" for index, case in enumerate(CASES)])
def test_int8_kernels_are_within_one_step_of_onnx_runtime(case: Case, tmp_path: Path) -> None:
    model, path = _net(case), tmp_path / "m.tflite"
    feeds = {f"x{index}": (RNG.standard_normal(shape) * 2).astype(np.float32) for index, shape in enumerate(case.fed)}
    write_tflite(ir.serde.deserialize_model(model), path)
    found = [operator.code for operator in read_file(path).main.operators]
    assert found.count("DEQUANTIZE") == case.outputs, f"a step between is float: {found}"
    want = session(model.SerializeToString(), optimise=False).run(None, feeds)
    for kernels in KERNELS:
        got = litert(path, feeds, kernels)
        for entry, value in zip(model.graph.output, want, strict=True):
            steps = np.rint((got[entry.name] - np.asarray(value)) / STEP)
            assert np.abs(steps).max() <= 1, kernels
            assert (steps == 0).mean() >= 0.8, kernels
