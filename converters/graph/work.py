"""Multiply-accumulates of a node of a canonical graph, at batch 1."""

import math

import onnx_ir as ir

from converters.graph.shapes import with_batch

_CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv")
_PRODUCTS = ("MatMul", "Gemm", "MatMulInteger")
_RECURRENT = ("LSTM", "GRU", "RNN")
_COUNTED = {*_CONVOLUTIONS, *_PRODUCTS, *_RECURRENT, "ConvTranspose"}


def node_macs(node: ir.Node) -> int:
    """Multiply-accumulates of one node at batch 1; 0 where it has none or a shape is unknown.

    Each output element of a convolution sums over (input channels / groups) x kernel, the tail of the weights' shape;
    a transposed one spends that on each input element instead. A recurrent operator uses every weight once per step.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in _COUNTED or len(node.inputs) < 2:
        return 0
    weight_at = 3 if node.op_type == "QLinearConv" else 1
    source, weight = _sizes(node.inputs[0]), _sizes(node.inputs[weight_at])
    out = _sizes(node.outputs[0]) if node.outputs and node.op_type not in _RECURRENT else ()
    if source is None or weight is None or out is None:
        return 0
    if node.op_type in _RECURRENT:
        recurrence = _sizes(node.inputs[2]) if len(node.inputs) > 2 else None
        return math.prod(source[:2]) * (math.prod(weight) + math.prod(recurrence or (0,)))
    if node.op_type in _PRODUCTS:
        turned = node.attributes.get("transA")
        return math.prod(out) * (source[0] if turned is not None and turned.as_int() else source[-1])
    per_element = math.prod(weight[1:])
    return per_element * math.prod(source if node.op_type == "ConvTranspose" else out)


def _sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    return None if value is None else with_batch(value)
