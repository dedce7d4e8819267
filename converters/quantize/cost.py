"""What a unit costs on a profile: a line over its work, from the profile's table. No clock is read here."""

import math

import onnx_ir as ir

from converters.quantize.units import Unit, constant
from lepton_edge.typed import Record

TYPICAL_SIZE = 64
"""Stands for an axis of unknown size (the length of a text, say); the batch is 1."""
STEM_CHANNELS = 4
"""With so few input channels runtimes take other kernels, which cannot fill their vectors."""
_FREE = {"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
"""Views: no byte is moved."""


class Line(Record, frozen=True, kw_only=True):
    """Nanoseconds: fixed + mac * multiply-accumulates + read * elements read + written * elements written."""

    fixed: float = 0.0
    mac: float = 0.0
    read: float = 0.0
    written: float = 0.0


class OperatorCost(Record, frozen=True, kw_only=True):
    """A kind of operator in float and in int8."""

    in_float: Line
    in_int8: Line


class Edges(Record, frozen=True, kw_only=True):
    """Nanoseconds an element.

    quantize, dequantize: a change of form. relayout: what it costs more beside an operator on images, because the
    runtime has another memory layout for each form there.
    """

    quantize: float = 0.0
    dequantize: float = 0.0
    relayout: float = 0.0


SPATIAL = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize"})
"""Operators for which runtimes prefer a memory layout of their own."""


def kind(unit: Unit) -> str:
    """The key of a unit in a profile: its operator, and what makes its cost another."""
    node = unit.nodes[0]
    if node.op_type == "Conv":
        return f"Conv.{_conv_kind(node)}"
    if node.op_type == "MatMul" and unit.weight is None:
        return "MatMul.dynamic"
    if node.op_type == "Mul" and len({elements(value) for value in unit.data}) > 1:
        return "Mul.channel"
    return node.op_type


def _conv_kind(node: ir.Node) -> str:
    weight = constant(node.inputs[1])
    group = node.attributes.get_int("group", 1)
    if weight is None:
        return "computed"
    if group > 1:
        return "depthwise" if weight.shape[1] == 1 else "grouped"
    if int(weight.shape.numpy()[1]) <= STEM_CHANNELS:
        return "stem"
    return "pointwise" if math.prod(weight.shape.numpy()[2:]) == 1 else "dense"


def cost(line: Line, unit: Unit) -> float:
    """Nanoseconds of one run at batch 1."""
    read = sum(elements(value) for value in unit.data)
    written = sum(elements(value) for value in unit.outputs)
    return line.fixed + line.mac * macs(unit) + line.read * read + line.written * written


def elements(value: ir.Value | None) -> int:
    """Elements of a tensor at batch 1."""
    if value is None or value.shape is None:
        return TYPICAL_SIZE
    sizes = (size if isinstance(size, int) else None for size in value.shape)
    return math.prod((1 if axis == 0 else TYPICAL_SIZE) if size is None else size for axis, size in enumerate(sizes))


def macs(unit: Unit) -> int:
    """Multiply-accumulates of one run at batch 1; 0 where a unit multiplies no matrices."""
    node = unit.nodes[0]
    tensor = constant(unit.weight)
    if tensor is not None:
        size, shape = int(tensor.size), tensor.shape.numpy()
        if node.op_type == "ConvTranspose":
            return elements(node.inputs[0]) * size // max(1, shape[0])
        return elements(node.outputs[0]) * size // max(1, shape[0] if node.op_type == "Conv" else shape[-1])
    if node.op_type == "MatMul":
        left = node.inputs[0]
        inner = left.shape[-1] if left is not None and left.shape else 0
        return elements(node.outputs[0]) * (inner if isinstance(inner, int) else TYPICAL_SIZE)
    return 0


def is_view(unit: Unit) -> bool:
    """Whether it moves no byte in either form."""
    return unit.operator in _FREE
