"""Multiply-accumulates, and the share of them that a quantised graph does in int8."""

import math

import onnx
from onnx import shape_inference

from converters.graph.signature import graph_inputs

_CONVOLUTIONS = {"Conv", "ConvInteger", "QLinearConv"}
_PRODUCTS = {"MatMul", "Gemm", "MatMulInteger"}
_RECURRENT = {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}
_INTEGER = {"ConvInteger", "MatMulInteger", "QLinearConv", "DynamicQuantizeLSTM"}
_COUNTED = _CONVOLUTIONS | _PRODUCTS | _RECURRENT | {"ConvTranspose"}


def int8_share(model: onnx.ModelProto) -> float:
    """The share (0 to 1) of a quantised graph's multiply-accumulates that are done in int8, at batch 1.

    A float node between DequantizeLinear and QuantizeLinear is one that runtimes fuse into an integer kernel.
    """
    shapes = _shapes(model)
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    to_quantise = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    total = integer = 0
    for node in model.graph.node:
        count = node_macs(node, shapes)
        total += count
        fused = node.op_type not in _RECURRENT and set(node.input[:2]) <= dequantised and node.output[0] in to_quantise
        integer += count if node.op_type in _INTEGER or fused else 0
    return integer / total if total else 0.0


def node_macs(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    """Multiply-accumulates of one node; 0 where it has none or a shape is unknown.

    Each output element of a convolution sums over (input channels / groups) x kernel, the tail of the weights' shape;
    a transposed one spends that on each input element instead.
    """
    if node.op_type not in _COUNTED or len(node.input) < 2:
        return 0
    weight = node.input[3] if node.op_type == "QLinearConv" else node.input[1]
    left, right, out = (shapes.get(name, []) for name in (node.input[0], weight, node.output[0]))
    if node.op_type in _RECURRENT:
        # At each step every weight is used once: W (input) and R (the state before), inputs 1 and 2.
        return math.prod(left[:2]) * (math.prod(right) + math.prod(shapes.get(node.input[2], [0]))) if left else 0
    if not left or not right or not out:
        return 0
    if node.op_type == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    if node.op_type in _CONVOLUTIONS:
        return math.prod(out) * math.prod(right[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(out) * (left[0] if transposed else left[-1])


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Shapes by tensor name, with the batch set to 1; a tensor whose shape stays unknown is left out."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in graph_inputs(copy.graph):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    for value in (*copy.graph.value_info, *copy.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param or not dim.HasField("dim_value"):
                dim.Clear()
    inferred = shape_inference.infer_shapes(copy)
    known = {tensor.name: list(tensor.dims) for tensor in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if sizes and all(sizes):
            known[value.name] = sizes
    return known
