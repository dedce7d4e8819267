"""What a unit costs on a profile: a line over its work, from the profile's table. No clock is read here."""

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from converters.graph.work import node_macs
from converters.quantize.units import Unit, constant
from lepton_edge.typed import Record

TYPICAL_SIZE = 64
"""Stands for an axis of unknown size (the length of a text, say); the batch is 1."""
STEM_CHANNELS = 4
"""With so few input channels runtimes take other kernels, which cannot fill their vectors."""
WIDE_WINDOW = 25
"""Larger windows of depthwise convolutions have kernels that go through the window in several passes."""
VECTOR = 16
"""Channels that are no multiple of this leave kernels a rest that they compute one by one."""
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


MARKS = frozenset({"border", "linear", "ragged", "wide"})
"""What a kind may end with, one mark behind the other: slower kernels, which not every table tells apart."""


def kind(unit: Unit) -> str:
    """The key of a unit in a profile: its operator, and what makes its cost another."""
    node = unit.nodes[0]
    if node.op_type == "Conv":
        return f"Conv.{_conv_kind(node)}"
    if node.op_type == "MatMul" and unit.weight is None:
        return "MatMul.dynamic"
    if node.op_type == "Mul" and len({str(value.shape) for value in unit.data}) > 1:
        return "Mul.channel"
    if node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") != "nearest":
        return "Resize.linear"
    if node.op_type == "MaxPool" and not _between_convolutions(unit):
        return "MaxPool.border"
    return node.op_type


def _between_convolutions(unit: Unit) -> bool:
    """Only there runtimes keep a pool in the convolutions' memory layout, in which alone it is fast in int8."""
    readers = {use.node.op_type for value in unit.outputs for use in value.uses()}
    return "Conv" in readers and any(value.producer() is not None for value in unit.data)


def _conv_kind(node: ir.Node) -> str:
    weight = constant(node.inputs[1])
    if weight is None:
        return "computed"
    channels, inputs, *window = (int(size) for size in weight.shape.numpy())
    group = node.attributes.get_int("group", 1)
    if group > 1 and inputs > 1:
        return "grouped"
    if group == 1 and inputs <= STEM_CHANNELS and math.prod(window) > 1:
        return "stem"
    plain = "depthwise" if group > 1 else "pointwise" if math.prod(window) == 1 else "dense"
    even = channels % VECTOR == 0 and (group > 1 or inputs % VECTOR == 0)
    wide = group > 1 and math.prod(window) > WIDE_WINDOW
    return plain + ("" if even else ".ragged") + (".wide" if wide else "")


class Sizes:
    """How much work units are in one run."""

    def __init__(self, observed: Mapping[str, int]) -> None:
        """observed: elements of tensors in one run on average, as calibration saw them."""
        self._observed = observed

    def cost(self, line: Line, unit: Unit) -> float:
        """Nanoseconds of one run."""
        read = sum(self.elements(value) for value in unit.data)
        written = sum(self.elements(value) for value in unit.outputs)
        return line.fixed + line.mac * self.macs(unit) + line.read * read + line.written * written

    def elements(self, value: ir.Value | None) -> int:
        """Elements of a tensor: those observed, else those of its shape at batch 1."""
        if value is None:
            return 0
        if value.name in self._observed:
            return self._observed[value.name or ""]
        if value.shape is None:
            return TYPICAL_SIZE
        sizes = (size if isinstance(size, int) and size >= 0 else None for size in value.shape)
        return math.prod(
            (1 if axis == 0 else TYPICAL_SIZE) if size is None else size for axis, size in enumerate(sizes)
        )

    def macs(self, unit: Unit) -> int:
        """Multiply-accumulates of one run; 0 where a unit multiplies no matrices."""
        node = unit.nodes[0]
        tensor = constant(unit.weight)
        if tensor is None and node.op_type == "MatMul":
            return self._products(node)
        if tensor is None:
            return _macs_of_float(node)
        size, shape = int(tensor.size), tensor.shape.numpy()
        if node.op_type == "ConvTranspose":
            return self.elements(node.inputs[0]) * size // max(1, shape[0])
        # Inside a unit nothing is observed; bias and activation leave the number of elements as it is.
        written = self.elements(unit.outputs[0])
        return written * size // max(1, shape[0] if node.op_type == "Conv" else shape[-1])

    def _products(self, node: ir.Node) -> int:
        """Of two computed matrices: each element of the left one meets each column of the right one."""
        left, right = node.inputs[0], node.inputs[1]
        columns = right.shape[-1] if right is not None and right.shape else 0
        if isinstance(columns, int):
            return self.elements(left) * columns
        inner = left.shape[-1] if left is not None and left.shape else 0
        return self.elements(node.outputs[0]) * (inner if isinstance(inner, int) else TYPICAL_SIZE)


def _macs_of_float(node: ir.Node) -> int:
    """Of what no plan takes: recurrent operators, computed weights, and the dearest body of control flow, run once."""
    graphs = [body for attribute in node.attributes.values() for body in _bodies(attribute)]
    return max([node_macs(node), *(sum(_macs_of_float(inner) for inner in body) for body in graphs)])


def _bodies(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else []


def is_view(unit: Unit) -> bool:
    """Whether it moves no byte in either form."""
    return unit.operator in _FREE
