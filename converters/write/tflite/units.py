"""Nodes that become one operator of TFLite: a product with its bias, and an activation whose result is quantised."""

from collections.abc import Sequence

import onnx_ir as ir

from converters.tflite.model import Quantization
from converters.write.tflite.activation import bounds_of
from converters.write.tflite.scales import DEQUANTIZE, QUANTIZE, is_constant, scales_of, steps_type

_EIGHT_BITS = {ir.DataType.INT8, ir.DataType.UINT8}


def product_with_bias(node: ir.Node) -> list[ir.Node]:
    """A node; behind a product with constant weights also the Add of a constant that alone reads it."""
    uses = list(node.outputs[0].uses())
    alone = len(uses) == 1 and not node.outputs[0].is_graph_output()
    if node.op_type != "MatMul" or not alone or uses[0].node.op_type != "Add" or uses[0].node.graph is not node.graph:
        return [node]
    add, weight = uses[0].node, node.inputs[1]
    bias = add.inputs[1 - uses[0].idx]
    if not (_is_constant_operand(weight) and _is_constant_operand(bias)):
        return [node]
    sizes = [None if value is None or value.shape is None else tuple(value.shape) for value in (weight, bias)]
    fits = sizes[0] is not None and len(sizes[0]) == 2 and sizes[1] == sizes[0][1:]
    return [node, add] if fits else [node]


def _is_constant_operand(value: ir.Value | None) -> bool:
    """Whether it is a constant, or one behind a DequantizeLinear."""
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == DEQUANTIZE:
        return is_constant(producer.inputs[0])
    return is_constant(value)


def read_by(chain: Sequence[ir.Node]) -> list[ir.Value | None]:
    """What a unit reads; a bias that is added behind comes last."""
    found = list(chain[0].inputs)
    for node in chain[1:]:
        found += [value for value in node.inputs if value is not chain[0].outputs[0]]
    return found


def activation_behind(node: ir.Node) -> ir.Node | None:
    """The Relu or Clip that alone reads a node, where its result is quantised at once."""
    uses = list(node.outputs[0].uses())
    if len(node.outputs) != 1 or len(uses) != 1 or node.outputs[0].is_graph_output():
        return None
    reader = uses[0].node
    if reader.op_type not in {"Relu", "Clip"} or uses[0].idx or bounds_of(reader) is None:
        return None
    return reader if written_scales(reader.outputs[0]) is not None else None


def written_scales(value: ir.Value) -> Quantization | None:
    """The one form in which all readers of a value quantise it to 8 bits; None where there is no such.

    Raises:
        CannotLowerError: a form that TFLite does not have.
    """
    readers = [use.node for use in value.uses()]
    if value.is_graph_output() or not readers or any(node.op_type != QUANTIZE for node in readers):
        return None
    if any(steps_type(node) not in _EIGHT_BITS for node in readers):
        return None
    first, *rest = [scales_of(node) for node in readers]
    return first if not first.per_channel and all(first.same(one) for one in rest) else None
