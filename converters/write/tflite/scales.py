"""QuantizeLinear and DequantizeLinear of a graph as the scales of TFLite's tensors, which are S8 where ours are U8."""

from functools import partial

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converters.quantize.encoding import SHIFT
from converters.tflite.model import Data, DType, Quantization
from converters.write.tflite.lowering import CannotLowerError
from converters.write.tflite.program import Value

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_STEPS: dict[ir.DataType, DType] = {
    ir.DataType.INT8: "int8",
    ir.DataType.UINT8: "int8",
    ir.DataType.INT16: "int16",
    ir.DataType.INT32: "int32",
}


def is_constant(value: ir.Value | None) -> bool:
    """Whether it is an initialiser that nobody can feed."""
    return value is not None and value.const_value is not None and value.is_initializer() and not value.is_graph_input()


def steps_type(node: ir.Node) -> ir.DataType | None:
    """The integer type of the steps of a QuantizeLinear or DequantizeLinear."""
    steps = node.inputs[0] if node.op_type == DEQUANTIZE else node.outputs[0]
    return None if steps is None else steps.dtype


def scales_of(node: ir.Node) -> Quantization:
    """What a QuantizeLinear or DequantizeLinear says.

    Raises:
        CannotLowerError: scales that are computed, or in blocks; a type of steps that TFLite has no scales for.
    """
    kind = steps_type(node)
    if kind not in _STEPS:
        raise CannotLowerError(f"TFLite has no steps of type {kind.name if kind else 'unknown'}")
    if node.attributes.get_int("block_size", 0):
        raise CannotLowerError("TFLite has no scales in blocks")
    ends = [node.inputs[index] if index < len(node.inputs) else None for index in (1, 2)]
    if not all(end is None or is_constant(end) for end in ends) or ends[0] is None:
        raise CannotLowerError("its scale or zero point is computed, not constant")
    scale = _numbers(ends[0]).astype(np.float32).reshape(-1)
    zero = np.zeros(scale.shape, np.int64) if ends[1] is None else _numbers(ends[1]).astype(np.int64).reshape(-1)
    shift = SHIFT if kind == ir.DataType.UINT8 else 0
    steps = node.inputs[0]
    rank = len(steps.shape) if steps is not None and steps.shape is not None else 1
    axis = node.attributes.get_int("axis", 1) % max(1, rank) if len(scale) > 1 else 0
    return Quantization(scale, zero - shift, axis)


def quantised_constant(node: ir.Node, name: str) -> Value:
    """What a DequantizeLinear reads where that is a constant.

    Raises:
        CannotLowerError: as `scales_of`.
    """
    scales, steps = scales_of(node), node.inputs[0]
    if steps is None or steps.const_value is None:
        raise AssertionError(f"{name} is no constant")
    tensor = steps.const_value
    shape = tuple(int(size) for size in tensor.shape.numpy())
    dtype = _STEPS[tensor.dtype]
    data: Data = tensor
    if tensor.dtype == ir.DataType.UINT8:
        data = ir.LazyTensor(partial(_shifted, tensor), dtype=ir.DataType.INT8, shape=ir.Shape(shape))
    return Value(name, shape, dtype, scales, data)


def real_constant(stored: Value, name: str) -> Value:
    """The float32 constant that a quantised one stands for; computed when its data are asked for."""
    shape = tuple(int(size) for size in stored.shape)
    data = ir.LazyTensor(partial(_real, stored), dtype=ir.DataType.FLOAT, shape=ir.Shape(shape))
    return Value(name, stored.shape, "float32", data=data, stored=stored)


def _numbers(value: ir.Value) -> npt.NDArray[np.generic]:
    if value.const_value is None:
        raise AssertionError(f"{value.name} is no constant")
    return value.const_value.numpy()


def _shifted(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor((tensor.numpy().astype(np.int16) - SHIFT).astype(np.int8))


def _real(stored: Value) -> ir.TensorProtocol:
    scales = stored.quantization
    if scales is None:
        return ir.Tensor(stored.array().astype(np.float32))
    wide = [-1 if axis == scales.axis and scales.per_channel else 1 for axis in range(stored.rank)]
    steps = stored.array().astype(np.float32) - scales.zero_point.reshape(wide).astype(np.float32)
    return ir.Tensor(np.asarray(steps * scales.scale.reshape(wide), np.float32).reshape(stored.array().shape))
