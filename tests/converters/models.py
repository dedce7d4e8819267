"""Small ONNX models, written node by node, with weights from a seed."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
    opset: int = OPSET,
    input_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, input_type, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    return made


WIDTH = 32
"""Wide enough that int8 pays on the profiles that know their costs."""


def conv_net(*, seed: int = 0, opset: int = OPSET, batch: int | str = "batch", side: int | str = 8) -> onnx.ModelProto:
    """Conv, BatchNorm, Relu, Conv, Relu, mean, Gemm: (batch, 3, side, side) -> (batch, 4)."""
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.standard_normal((WIDTH, 3, 3, 3)).astype(np.float32),
        "gamma": rng.uniform(0.5, 2, WIDTH).astype(np.float32),
        "beta": rng.standard_normal(WIDTH).astype(np.float32),
        "mean": rng.standard_normal(WIDTH).astype(np.float32),
        "var": rng.uniform(0.5, 2, WIDTH).astype(np.float32),
        "w2": rng.normal(0, 0.1, (WIDTH, WIDTH, 3, 3)).astype(np.float32),
        "fc": rng.standard_normal((4, WIDTH)).astype(np.float32),
        "fb": rng.standard_normal(4).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"], "norm"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2"], ["c2"], "wide", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc", "fb"], ["y"], "head", transB=1),
    ]
    shapes: dict[str, list[int | str]] = {"x": [batch, 3, side, side]}
    return model(nodes, weights, inputs=shapes, outputs={"y": [batch, 4]}, opset=opset)


def fragile_net() -> onnx.ModelProto:
    """Two classes apart by a thousandth of their size: int8 cannot tell them apart. (batch, 64, 8, 8) -> (batch, 2)."""
    weights = np.zeros((64, 64, 3, 3), np.float32)
    weights[:, 1:, 1, 1] = 1.0
    weights[::2, 0, 1, 1] = 0.05
    head = np.zeros((64, 2), np.float32)
    head[::2, 0] = head[1::2, 1] = 1.0
    constants = {"w": weights, "head": head, "b": np.zeros(2, np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "thin", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "head", "b"], ["y"], "pair"),
    ]
    return model(nodes, constants, inputs={"x": ["batch", 64, 8, 8]}, outputs={"y": ["batch", 2]})


def fragile_data(count: int = 200) -> dict[str, np.ndarray]:
    """What tells the classes apart is the sign of the first channel."""
    rng = np.random.default_rng(0)
    x = np.ones((count, 64, 8, 8), np.float32) * rng.uniform(0.5, 1, (count, 1, 1, 1)).astype(np.float32)
    sign = rng.choice([-1.0, 1.0], count)
    x[:, 0] = (0.2 * sign)[:, None, None]
    return {"x": x, "y": (sign < 0).astype(np.int64)}


def tiny_net() -> onnx.ModelProto:
    """Four weights: names and scales would take more bytes than int8 saves. (batch, 2) -> (batch, 2)."""
    weights = {"w": np.array([[0.1, -0.1], [1.0, 1.0]], np.float32), "b": np.zeros(2, np.float32)}
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "tiny")
    return model([node], weights, inputs={"x": ["batch", 2]}, outputs={"y": ["batch", 2]})


def no_weights_net() -> onnx.ModelProto:
    """Softmax alone: nothing to quantise."""
    node = helper.make_node("Softmax", ["x"], ["y"], "soft")
    return model([node], {}, inputs={"x": ["batch", 4]}, outputs={"y": ["batch", 4]})


def half_net() -> onnx.ModelProto:
    """A product in float16: (batch, 8) -> (batch, 4)."""
    weights = {"w": np.random.default_rng(4).standard_normal((8, 4)).astype(np.float16)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "half")
    made = model([node], weights, inputs={"x": ["batch", 8]}, outputs={"y": ["batch", 4]})
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return made


def lstm_net() -> onnx.ModelProto:
    """(batch, 5, 16) -> (1, batch, 32): the last state of an LSTM."""
    rng = np.random.default_rng(5)
    weights = {
        "w": (0.2 * rng.standard_normal((1, 128, 16))).astype(np.float32),
        "r": (0.2 * rng.standard_normal((1, 128, 32))).astype(np.float32),
        "b": np.zeros((1, 256), np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "w", "r", "b"], ["", "y"], "lstm", hidden_size=32),
    ]
    return model(nodes, weights, inputs={"x": ["batch", 5, 16]}, outputs={"y": [1, "batch", 32]})


def text_net() -> onnx.ModelProto:
    """Token indices: Gather, mean, MatMul. (batch, 6) int64 -> (batch, 3)."""
    rng = np.random.default_rng(3)
    weights = {
        "table": rng.standard_normal((50, 64)).astype(np.float32),
        "w": rng.standard_normal((64, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "embed"),
        helper.make_node("ReduceMean", ["e"], ["m"], "mean", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"], "head"),
    ]
    return model(
        nodes, weights, inputs={"ids": ["batch", 6]}, outputs={"y": ["batch", 3]}, input_type=TensorProto.INT64
    )


def samples(count: int = 60, *, seed: int = 1) -> dict[str, np.ndarray]:
    """Inputs of `conv_net` with the classes that it gives itself."""
    x = np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)
    return {"x": x}
