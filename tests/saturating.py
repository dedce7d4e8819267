"""A net whose U8S8 form answers wrongly on x86 without VNNI, for tests that want such a file.

There the instruction behind it (vpmaddubsw) adds two products in 16 bits and saturates in silence.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = (32, 14, 14)


def saturating_net() -> onnx.ModelProto:
    """Weights that are alike in pairs, so that with large inputs the sum of two products overflows 16 bits.

    (batch, 32, 14, 14) -> (batch, 4).
    """
    rng = np.random.default_rng(0)
    signs = np.repeat(np.sign(rng.standard_normal((64, 8))), 4, axis=1)
    weights = {
        "w": (signs[:, :, None, None] * rng.uniform(0.9, 1, (64, 32, 3, 3)) / 288).astype(np.float32),
        "b": np.zeros(64, np.float32),
        "fc": rng.standard_normal((64, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("ReduceMean", ["r"], ["m"], "mean", axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["m", "fc"], ["y"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "saturating",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *IMAGE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saturating_samples(count: int = 60) -> np.ndarray:
    """Inputs near the top of their range. Returns: float32, (count, 32, 14, 14)."""
    rng = np.random.default_rng(1)
    x = rng.uniform(0.75, 1, (count, IMAGE[0], 1, 1)) * rng.uniform(0.95, 1, (count, *IMAGE))
    return x.astype(np.float32)
