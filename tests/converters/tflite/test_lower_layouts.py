"""Operators on tensors between convolutions, which want channels last: axes and parameters go with the layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.converters.tflite.one_node import KERNELS, Array, answers, convert, litert

RNG = np.random.default_rng(7)
SHAPE = (1, 6, 5, 4)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


class Case(NamedTuple):
    """A node behind a convolution; None among its inputs: the convolution's result once more."""

    operator: str
    attributes: Mapping[str, Any] = {}
    inputs: Sequence[Array | None] = ()
    outputs: int = 1


def _along(axis: int) -> list[Case]:
    size, pads, twice = SHAPE[axis], [0] * 8, [1] * 4
    pads[axis], pads[axis + 4], twice[axis] = 1, 2, 2
    mirrored = [Case("Pad", {"mode": mode}, [ints(*pads)]) for mode in ("edge", "wrap")]
    return [
        Case("Concat", {"axis": axis}, [None]),
        Case("Concat", {"axis": axis}, [RNG.standard_normal(SHAPE).astype(np.float32)]),
        Case("Slice", {}, [ints(-1), ints(-99), ints(axis), ints(-1)]),
        Case("Slice", {}, [ints(0), ints(9), ints(axis), ints(2)]),
        Case("Pad", {}, [ints(*pads)]),
        Case("Pad", {}, [ints(*pads), np.array(2.5, np.float32)]),
        *mirrored,
        Case("Tile", {}, [ints(*twice)]),
        Case("Gather", {"axis": axis}, [ints(0, -1)]),
        Case("Gather", {"axis": axis}, [np.array(0)]),
        Case("GatherElements", {"axis": axis}, [RNG.integers(0, size, SHAPE)]),
        Case("CumSum", {}, [np.array(axis)]),
        Case("TopK", {"axis": axis}, [ints(1)], 2),
        Case("ArgMax", {"axis": axis, "keepdims": 0}),
        Case("ArgMin", {"axis": axis, "select_last_index": 1}),
        *(Case("ReduceMax", {"keepdims": keep}, [ints(axis)]) for keep in (0, 1)),
        *(Case("ReduceMean", {"keepdims": keep}, [ints(axis, (axis + 1) % 4)]) for keep in (0, 1)),
        Case("ReduceLogSumExp", {"keepdims": 1}, [ints(axis)]),
        Case("Unsqueeze", {}, [ints(axis)]),
        Case("Flatten", {"axis": axis}),
        *([Case("Split", {"axis": axis, "num_outputs": 2}, (), 2)] if axis else []),
    ]


OTHERS = [
    *(
        Case("Add", {}, [RNG.standard_normal(shape).astype(np.float32)])
        for shape in ((), (4,), (6, 1, 1), (2, 6, 5, 4))
    ),
    *(Case("Transpose", {"perm": order}) for order in ((0, 2, 3, 1), (3, 2, 1, 0), (0, 1, 3, 2))),
    *(Case("Reshape", {}, [ints(*shape)]) for shape in ((1, 3, 2, 5, 4), (1, 6, 20), (1, 30, 4), (120,), (1, 4, 5, 6))),
    Case("Expand", {}, [ints(3, 1, 6, 5, 4)]),
    Case("Trilu"),
    Case("NonZero"),
    Case("GatherND", {}, [np.array([[0, 1], [0, -1]])]),
    Case("Compress", {"axis": 1}, [np.array([1, 0, 1], np.bool_)]),
]


def _net(case: Case) -> onnx.ModelProto:
    """x -> Conv -> the node -> Conv, where what it gives has four axes."""
    weights = {"w": RNG.standard_normal((6, 3, 1, 1)).astype(np.float32)}
    weights |= {f"p{index}": value for index, value in enumerate(case.inputs) if value is not None}
    names = ["c", *(f"p{index}" if value is not None else "c" for index, value in enumerate(case.inputs))]
    made = [f"y{index}" for index in range(case.outputs)]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node(case.operator, names, made, **case.attributes),
    ]
    fed = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 3, 5, 4))]

    def model(outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        held = [numpy_helper.from_array(value, name) for name, value in weights.items()]
        graph = helper.make_graph(nodes, "net", fed, outputs, held)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)

    found = answers(model([helper.make_empty_tensor_value_info(name) for name in made]), {"x": _fed()})
    outputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in zip(made, found, strict=True)
    ]
    if found[0].ndim == 4 and found[0].dtype == np.float32:
        weights["v"] = RNG.standard_normal((2, found[0].shape[1], 1, 1)).astype(np.float32)
        nodes.append(helper.make_node("Conv", [made[0], "v"], ["z"]))
        shape = (found[0].shape[0], 2, *found[0].shape[2:])
        outputs[0] = helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, shape)
    return model(outputs)


def _fed() -> Array:
    return np.linspace(-1, 1, 60, dtype=np.float32).reshape(1, 3, 5, 4)


@pytest.mark.parametrize("axis", range(4))
def test_axes_and_parameters_go_with_the_layout(axis: int, tmp_path: Path) -> None:
    for case in _along(axis):
        _check(case, tmp_path / "m.tflite")


def test_views_and_broadcasts_go_with_the_layout(tmp_path: Path) -> None:
    for case in OTHERS:
        _check(case, tmp_path / "m.tflite")


def _check(case: Case, path: Path) -> None:
    model = _net(case)
    feeds = {"x": _fed()}
    want = answers(model, feeds)
    convert(model, path)
    for kernels in KERNELS:
        got = litert(path, feeds, kernels)
        for entry, value in zip(model.graph.output, want, strict=True):
            assert got[entry.name].shape == value.shape, (case, kernels)
            np.testing.assert_allclose(got[entry.name], value, rtol=1e-4, atol=1e-5, err_msg=f"{case} {kernels}")
