"""One-node graphs at opset 20, and the lowest opset that each can be written at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper, shape_inference

OPSET = 20
F32 = np.random.default_rng(7).standard_normal((2, 4, 6, 6)).astype(np.float32)
TABLE = F32[0, 0]
SMALL = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, -0.25]], np.float32)


@dataclass(frozen=True)
class Case:
    """A node with its inputs. Arrays in `fed` are inputs of the model, those in `held` are constants.

    Attributes:
        opset: the lowest that expresses it.
        inputs: names of `fed` and `held` in the node's order, "" for one that is absent.
    """

    op: str
    opset: int
    fed: dict[str, np.ndarray]
    held: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    inputs: Sequence[str] = ()
    outputs: int = 1


def x(array: np.ndarray = F32) -> dict[str, np.ndarray]:
    return {"x": array}


def unary(*ops: str, opset: int = 11, array: np.ndarray = F32) -> dict[str, Case]:
    return {op: Case(op, opset, x(array)) for op in ops}


def binary(*ops: str, opset: int = 11) -> dict[str, Case]:
    return {op: Case(op, opset, {"x": F32, "z": F32[::-1].copy()}) for op in ops}


def i64(*entries: int) -> np.ndarray:
    return np.array(entries, np.int64)


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
POSITIVE = np.abs(F32) + 1
SCALE = np.array(0.1, np.float32)
SCALES = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
CASES: dict[str, Case] = {
    **unary("Abs", "Ceil", "Exp", "Floor", "Neg", "Sigmoid", "Tanh", "Erf", "Relu", "Sign", "Identity", "Softplus"),
    **unary("Log", "Reciprocal", "Sqrt", array=POSITIVE),
    **unary("LeakyRelu", "Flatten", "GlobalAveragePool", "Shape", "Size", "IsNaN", "NonZero", "Elu", "Selu"),
    **binary("Add", "Div", "Mul", "Sub", "Max", "Min", "Mean", "Sum", "Greater", "Less", "Equal", "PRelu"),
    **binary("GreaterOrEqual", "LessOrEqual", opset=12),
    "Max of int64": Case("Max", 12, {"x": i64(1, 5), "z": i64(3, 2)}),
    "Relu of int32": Case("Relu", 14, x(np.array([-1, 2], np.int32))),
    "Mul of uint8": Case("Mul", 14, {"x": np.array([3], np.uint8), "z": np.array([5], np.uint8)}),
    "Pow": Case("Pow", 11, x(POSITIVE), {"e": np.float32(3)}),
    "Pow of other types": Case("Pow", 12, x(POSITIVE), {"e": np.int64(3)}),
    "Mod": Case("Mod", 11, {"x": i64(7, -7), "z": i64(3, 3)}),
    "IsInf": Case("IsInf", 11, x()),
    "CumSum": Case("CumSum", 11, x(TABLE), {"axis": i64(1).reshape(())}),
    "Clip": Case("Clip", 11, x(), {"low": np.float32(0), "high": np.float32(6)}),
    "Clip of int32": Case("Clip", 12, x(np.array([1, 9], np.int32)), {"low": np.int32(0), "high": np.int32(6)}),
    "Cast": Case("Cast", 11, x(), attributes={"to": TensorProto.INT32}),
    "CastLike": Case("CastLike", 15, x(), {"like": np.zeros(1, np.int32)}),
    "ConstantOfShape": Case("ConstantOfShape", 11, x(i64(2, 3))),
    "Expand": Case("Expand", 11, x(SMALL), {"s": i64(2, 2, 3)}),
    "Reshape": Case("Reshape", 11, x(), {"s": i64(2, -1)}),
    "Reshape with allowzero 0": Case("Reshape", 11, x(), {"s": i64(0, -1)}, {"allowzero": 0}),
    "Reshape with allowzero 1": Case("Reshape", 14, x(), {"s": i64(2, 144)}, {"allowzero": 1}),
    "Shape from 1": Case("Shape", 15, x(), attributes={"start": 1}),
    "Shape to 3": Case("Shape", 15, x(), attributes={"end": 3}),
    "Concat": Case("Concat", 11, {"x": F32, "z": F32}, attributes={"axis": 1}),
    "DepthToSpace": Case("DepthToSpace", 11, x(), attributes={"blocksize": 2, "mode": "CRD"}),
    "SpaceToDepth": Case("SpaceToDepth", 11, x(), attributes={"blocksize": 2}),
    "Gather": Case("Gather", 11, x(TABLE), {"i": i64(1, -1, 3)}),
    "GatherElements": Case("GatherElements", 11, x(SMALL), {"i": np.zeros((2, 3), np.int64)}),
    "GatherND": Case("GatherND", 11, x(SMALL), {"i": np.array([[0, 1], [1, 2]])}),
    "GatherND in batches": Case("GatherND", 12, x(SMALL), {"i": np.array([[1], [2]])}, {"batch_dims": 1}),
    "ScatterND": Case("ScatterND", 11, x(SMALL), {"i": np.array([[1]]), "u": np.ones((1, 3), np.float32)}),
    "ScatterND add": Case(
        "ScatterND", 16, x(SMALL), {"i": np.array([[1]]), "u": np.ones((1, 3), np.float32)}, {"reduction": "add"}
    ),
    "ScatterND max": Case(
        "ScatterND", 18, x(SMALL), {"i": np.array([[1]]), "u": np.ones((1, 3), np.float32)}, {"reduction": "max"}
    ),
    "ScatterElements": Case(
        "ScatterElements", 11, x(SMALL), {"i": np.array([[0, 0, 0]]), "u": np.ones((1, 3), np.float32)}
    ),
    "Slice": Case("Slice", 11, x(), {"a": i64(0, 1), "b": i64(2, -1), "axes": i64(2, 3), "steps": i64(1, 2)}),
    "Tile": Case("Tile", 11, x(SMALL), {"r": i64(2, 1)}),
    "Transpose": Case("Transpose", 11, x(), attributes={"perm": [0, 2, 3, 1]}),
    "Where": Case("Where", 11, {"c": F32 > 0, "x": F32, "z": -F32}),
    "ArgMax": Case("ArgMax", 11, x(), attributes={"axis": 1}),
    "ArgMin, the last": Case("ArgMin", 12, x(), attributes={"axis": 1, "select_last_index": 1}),
    "MatMul": Case("MatMul", 11, x(TABLE), {"w": TABLE}),
    "MatMul of int32": Case("MatMul", 11, x(np.eye(2, dtype=np.int32)), {"w": np.eye(2, dtype=np.int32)}),
    "Gemm": Case("Gemm", 11, x(TABLE), {"w": TABLE, "b": TABLE[0]}),
    "Conv": Case("Conv", 11, x(), {"w": F32[:, :, :3, :3].copy()}, {"pads": [1, 1, 1, 1], "dilations": [1, 1]}),
    "Softmax": Case("Softmax", 11, x(), attributes={"axis": -1}),
    "Softmax by another name": Case("Softmax", 11, x(), attributes={"axis": 3}),
    "Softmax over channels": Case("Softmax", 13, x(), attributes={"axis": 1}),
    "Softmax by default": Case("Softmax", 13, x()),
    "LogSoftmax": Case("LogSoftmax", 11, x(), attributes={"axis": -1}),
    "Hardmax": Case("Hardmax", 11, x(), attributes={"axis": -1}),
    "LRN": Case("LRN", 11, x(), attributes={"size": 3}),
    "LpPool": Case("LpPool", 11, x(), attributes={"kernel_shape": [2, 2], "dilations": [1, 1]}),
    "MeanVarianceNormalization": Case("MeanVarianceNormalization", 11, x()),
    "BatchNormalization": Case(
        "BatchNormalization",
        11,
        x(),
        {"s": SCALES, "b": SCALES, "m": SCALES, "v": SCALES},
        {"training_mode": 0, "epsilon": 1e-3},
    ),
    "LayerNormalization": Case("LayerNormalization", 17, x(), {"s": np.ones(6, np.float32)}, {"axis": -1}),
    "AveragePool": Case("AveragePool", 11, x(), attributes={"kernel_shape": [3, 3], "dilations": [1, 1]}),
    "AveragePool, dilated": Case("AveragePool", 19, x(), attributes={"kernel_shape": [2, 2], "dilations": [2, 2]}),
    "AveragePool, ceiled": Case(
        "AveragePool", 11, x(), attributes={"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}
    ),
    "MaxPool": Case("MaxPool", 11, x(), attributes={"kernel_shape": [3, 3]}),
    "MaxPool of uint8": Case("MaxPool", 12, x(np.abs(F32).astype(np.uint8)), attributes={"kernel_shape": [2, 2]}),
    "Pad": Case("Pad", 11, x(SMALL), {"p": i64(0, 1, 0, 1)}),
    "Pad of some axes": Case("Pad", 18, x(SMALL), {"p": i64(1, 1), "v": np.float32(2), "axes": i64(1)}),
    "Pad, wrapped": Case("Pad", 19, x(SMALL), {"p": i64(0, 1, 0, 1)}, {"mode": "wrap"}),
    "Resize by scales": Case("Resize", 11, x(), {"s": np.array([1, 1, 2, 2], np.float32)}, inputs=("x", "", "s")),
    "Resize to sizes": Case("Resize", 11, x(), {"n": i64(2, 4, 9, 9)}, {"mode": "linear"}, ("x", "", "", "n")),
    "Resize, antialiased": Case(
        "Resize", 18, x(), {"n": i64(2, 4, 3, 3)}, {"mode": "linear", "antialias": 1}, ("x", "", "", "n")
    ),
    "Split in two": Case("Split", 11, x(), attributes={"axis": 1, "num_outputs": 2}, outputs=2),
    "Split unevenly": Case("Split", 11, x(), {"s": i64(1, 3)}, {"axis": 1}, outputs=2),
    "Split with a rest": Case("Split", 18, x(TABLE[:5]), attributes={"axis": 0, "num_outputs": 2}, outputs=2),
    "Squeeze": Case("Squeeze", 11, x(F32[:, :1]), {"axes": i64(1)}),
    "Squeeze by fed axes": Case("Squeeze", 13, {"x": F32[:, :1], "axes": i64(1)}),
    "Unsqueeze": Case("Unsqueeze", 11, x(SMALL), {"axes": i64(0, 3)}),
    **{f"Reduce{kind}": Case(f"Reduce{kind}", 11, x(POSITIVE), {"axes": i64(2, 3)}) for kind in REDUCTIONS},
    "ReduceMean of all": Case("ReduceMean", 11, x(), attributes={"keepdims": 0}),
    "ReduceMean by fed axes": Case("ReduceMean", 18, {"x": F32, "axes": i64(1)}),
    "ReduceMean of none": Case("ReduceMean", 18, x(), attributes={"noop_with_empty_axes": 1}),
    "ReduceMean that says its default": Case(
        "ReduceMean", 11, x(), held={"axes": np.array([1])}, attributes={"noop_with_empty_axes": 0}
    ),
    "ReduceMax of uint8": Case("ReduceMax", 12, x(np.abs(F32).astype(np.uint8)), {"axes": i64(1)}),
    "LSTM": Case(
        "LSTM",
        11,
        x(F32[0]),
        {"w": F32[:1, 0, :4].reshape(1, 4, 6), "r": np.ones((1, 4, 1), np.float32)},
        {"hidden_size": 1, "layout": 0},
    ),
    "GRU": Case(
        "GRU", 11, x(F32[0]), {"w": F32[:1, 0, :3].copy(), "r": np.ones((1, 3, 1), np.float32)}, {"hidden_size": 1}
    ),
    "RNN": Case(
        "RNN", 11, x(F32[0]), {"w": F32[:1, 0, :1].copy(), "r": np.ones((1, 1, 1), np.float32)}, {"hidden_size": 1}
    ),
    "QuantizeLinear": Case("QuantizeLinear", 11, x(), {"s": SCALE, "z": np.uint8(3)}),
    "QuantizeLinear per channel": Case(
        "QuantizeLinear", 13, x(), {"s": SCALES, "z": np.zeros(4, np.int8)}, {"axis": 1}
    ),
    "DequantizeLinear": Case(
        "DequantizeLinear", 11, x(np.arange(9, dtype=np.uint8)), {"s": SCALE, "z": np.uint8(3)}, {"axis": 0}
    ),
    "DequantizeLinear per channel": Case(
        "DequantizeLinear",
        13,
        x(np.arange(8, dtype=np.int8).reshape(2, 4)),
        {"s": SCALES, "z": np.zeros(4, np.int8)},
    ),
    "DynamicQuantizeLinear": Case("DynamicQuantizeLinear", 11, x(), outputs=3),
    "Einsum": Case("Einsum", 12, {"x": TABLE, "z": TABLE}, attributes={"equation": "ij,jk->ik"}),
    "Trilu": Case("Trilu", 14, x(TABLE)),
    "TopK": Case("TopK", 11, x(TABLE), {"k": i64(2)}, outputs=2),
    "Gelu": Case("Gelu", 11, x()),
    "Gelu by tanh": Case("Gelu", 11, x(), attributes={"approximate": "tanh"}),
    "HardSwish": Case("HardSwish", 11, x()),
    "GridSample": Case(
        "GridSample", 16, {"x": F32, "z": np.tanh(F32[:, :2, :3, :2]).copy().reshape(2, 2, 3, 2)}, attributes={}
    ),
}


def build(case: Case) -> ir.Model:
    """The case as a canonical graph with types inferred."""
    names = list(case.inputs) or [*case.fed, *case.held]
    outputs = [f"y{index}" for index in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, "node", **case.attributes)
    fed = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in case.fed.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in case.held.items()]
    graph = helper.make_graph([node], "graph", fed, results, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    made = ir.from_proto(shape_inference.infer_shapes(model, data_prop=True))
    for value in made.graph.outputs:
        if value.shape is None:  # MeanVarianceNormalization has no inference
            value.shape = made.graph.inputs[0].shape
    return made
