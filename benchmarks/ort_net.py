"""ONNX graphs of a few operators, in float or in int8, for profile_ort.py."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SCALE, WEIGHT_SCALE = 0.05, 0.002
OPSET = 20


class Net:
    """A graph being built, in float or in int8 (QDQ, U8 activations, S8 weights)."""

    def __init__(self, *, int8: bool) -> None:
        self.int8 = int8
        self.channels = 0
        self.shared = ""
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(0)

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, operator: str, inputs: list[str], **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], f"n{len(self.nodes)}", **attributes))
        return name

    def activation(self, x: str, scale: float = SCALE, zero: int = 128) -> str:
        """Quantise and dequantise, where this net is int8."""
        if not self.int8:
            return x
        ends = [self.constant(np.float32(scale)), self.constant(np.uint8(zero))]
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [x, *ends]), *ends])

    def weight(self, shape: tuple[int, ...], axis: int) -> str:
        if not self.int8:
            return self.constant(self._rng.normal(0, 0.05, shape).astype(np.float32))
        steps = self.constant(self._rng.integers(-127, 128, shape).astype(np.int8))
        count = shape[axis]
        scale, zero = np.full(count, WEIGHT_SCALE, np.float32), np.zeros(count, np.int8)
        return self.node("DequantizeLinear", [steps, self.constant(scale), self.constant(zero)], axis=axis)

    def bias(self, count: int, scale: float = SCALE) -> str:
        if not self.int8:
            return self.constant(np.zeros(count, np.float32))
        steps = self.constant(np.zeros(count, np.int32))
        scales, zero = np.full(count, scale * WEIGHT_SCALE, np.float32), np.zeros(count, np.int32)
        return self.node("DequantizeLinear", [steps, self.constant(scales), self.constant(zero)], axis=0)

    def conv(
        self, x: str, cin: int, cout: int, *, k: int = 1, group: int = 1, stride: int = 1, relu: bool = True
    ) -> str:
        inputs = [x, self.weight((cout, cin // group, k, k), 0), self.bias(cout)]
        made = self.node("Conv", inputs, kernel_shape=[k, k], pads=[k // 2] * 4, strides=[stride] * 2, group=group)
        self.channels = cout
        return self.activation(self.node("Relu", [made]), SCALE, 0) if relu else self.activation(made)

    def model(self, shape: tuple[int, ...], output: str) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "chain",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 9
        data: bytes = model.SerializeToString()
        return data
