"""U8 weights from S8 ones: the same real numbers, 128 added to data and zero point.

real = scale * (q - zero) = scale * ((q + 128) - (zero + 128)), so the rewritten graph computes the same; what changes
is which kernel a runtime picks (see `profiles`).
"""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

SHIFT = 128


def with_unsigned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy of a QDQ graph whose S8 constants are U8.

    Args:
        model: a graph in which DequantizeLinear reads its S8 constants; activations may be of any type.
    """
    shifted = onnx.ModelProto()
    shifted.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in shifted.graph.initializer}
    readers = [node for node in shifted.graph.node if _reads_signed_constant(node, constants)]
    done: set[str] = set()
    for node in readers:
        zero = _zero_point(node, constants, shifted.graph)
        for name in (node.input[0], zero):
            if name not in done:
                _shift(constants[name])
                done.add(name)
    return shifted


def _reads_signed_constant(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    weight = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    return weight is not None and weight.data_type == TensorProto.INT8


def _zero_point(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], graph: onnx.GraphProto) -> str:
    """The name of the node's zero point; one that was left out (0) is written down, so that it can be shifted."""
    if len(node.input) > 2 and node.input[2]:
        return str(node.input[2])
    scale = numpy_helper.to_array(constants[node.input[1]])
    name = f"{node.input[0]}_zero_point_of_{node.output[0]}"
    graph.initializer.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), name))
    constants[name] = graph.initializer[-1]
    del node.input[2:]
    node.input.append(name)
    return name


def _shift(tensor: onnx.TensorProto) -> None:
    signed: npt.NDArray[np.int8] = numpy_helper.to_array(tensor)
    unsigned = (signed.astype(np.int16) + SHIFT).astype(np.uint8)
    tensor.CopyFrom(numpy_helper.from_array(unsigned, tensor.name))
