"""Weights that are stored as integers made float again, where the arithmetic is float anyway.

So comes a TFLite file of "dynamic range", or an ONNX one that was made small alone. What is a constant then can be
folded, planned and quantised like any other; nothing is lost, as the numbers are the ones that were stored.
"""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

_DEQUANTISE = "DequantizeLinear"


def with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute each DequantizeLinear of constants in the main graph.

    Args:
        model: whose arithmetic is float; it is not changed.

    Returns:
        A copy, in which nodes whose scales come in blocks are left as they are; the model itself where there are none.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = [node for node in model.graph.node if _is_stored(node, constants)]
    if not found:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    made = {node.output[0]: _weights(node, constants) for node in found}
    kept = [node for node in copy.graph.node if not node.output or node.output[0] not in made]
    read = {name for node in kept for name in node.input}
    held = [tensor for tensor in copy.graph.initializer if tensor.name in read]
    for field, items in (("node", kept), ("initializer", held)):
        copied = [type(item).FromString(item.SerializeToString()) for item in items]
        copy.graph.ClearField(field)
        getattr(copy.graph, field).extend(copied)
    copy.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in made.items())
    return copy


def _is_stored(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    plain = node.op_type == _DEQUANTISE and not any(one.name == "block_size" and one.i for one in node.attribute)
    return plain and all(name in constants for name in node.input if name)


def _weights(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> npt.NDArray[np.float32]:
    """Real = scale * (step - zero point), along `axis` where there are several scales."""
    steps, scale, *zero = (numpy_helper.to_array(constants[name]) for name in node.input if name)
    axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
    shape = [1] * steps.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    numbers = steps.astype(np.float32)
    if zero:
        numbers -= zero[0].astype(np.float32).reshape(shape if zero[0].size > 1 else [1] * steps.ndim)
    numbers *= scale.astype(np.float32).reshape(shape)
    return numbers
