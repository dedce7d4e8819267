"""Units: what a runtime computes in one step, and so what is int8 or float as a whole.

A unit is an operator with the bias and the activation that fuse into it. Between the nodes of a unit nothing is
quantised. Nodes in the bodies of If and Loop belong to no unit: control flow stays float as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from converters.quantize.constraints import ACTIVATIONS, DYNAMIC_MATMUL, RULES, Rule

FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class Unit:
    """Nodes that are computed together.

    Attributes:
        nodes: the operator first, then what fuses into it.
        rule: how it is quantised; None: it has no int8 form.
        data: activations (and constants used like them) that it reads as int8.
        weight: its constant weights, if any.
        bias: its constant bias, if any.
        reason: why it has no int8 form, "" where it has one.
    """

    nodes: tuple[ir.Node, ...]
    rule: Rule | None
    data: tuple[ir.Value, ...] = ()
    weight: ir.Value | None = None
    bias: ir.Value | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        return self.nodes[0].name or ""

    @property
    def operator(self) -> str:
        return self.nodes[0].op_type

    @property
    def expected(self) -> bool:
        """Whether a user would expect it in int8, so that its absence wants a reason."""
        return self.nodes[0].op_type in RULES or _has_bodies(self.nodes[0])

    @property
    def outputs(self) -> Sequence[ir.Value]:
        """What the last of its nodes computes."""
        return self.nodes[-1].outputs

    @property
    def activation(self) -> ir.Node | None:
        """The Relu or Clip that it ends with."""
        last = self.nodes[-1]
        return last if len(self.nodes) > 1 and last.op_type in ACTIVATIONS else None


def find_units(graph: ir.Graph) -> list[Unit]:
    """Part the main graph's nodes into units, in the graph's order."""
    taken: set[ir.Node] = set()
    found = []
    for node in graph:
        if node not in taken:
            unit = _unit(node)
            taken.update(unit.nodes)
            found.append(unit)
    return found


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind an initialiser of the main graph; None for anything else."""
    return value.const_value if value is not None and value.is_initializer() and not value.is_graph_input() else None


def _unit(node: ir.Node) -> Unit:
    rule = _rule(node)
    if rule is None:
        return Unit((node,), None, reason=_no_rule(node))
    reason = _obstacle(node, rule)
    if reason:
        return Unit((node,), None, reason=reason)
    nodes = [node]
    bias = _at(node, rule.bias)
    if rule.weight is not None and rule.bias is None:
        bias = _take_bias(nodes)
    if rule.fuses:
        _take_activation(nodes)
    data = [value for value in _data(node, rule) if value.dtype == FLOAT]
    return Unit(tuple(nodes), rule, tuple(data), _at(node, rule.weight), bias)


def _has_bodies(node: ir.Node) -> bool:
    graphs = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
    return any(attribute.type in graphs for attribute in node.attributes.values())


def _no_rule(node: ir.Node) -> str:
    if _has_bodies(node):
        return "control flow stays float as a whole, with what stands in its bodies"
    return "has no int8 form"


def _rule(node: ir.Node) -> Rule | None:
    if node.domain not in {"", "ai.onnx"}:
        return None
    if node.op_type == "MatMul" and constant(node.inputs[1]) is None:
        return DYNAMIC_MATMUL
    return RULES.get(node.op_type)


def _obstacle(node: ir.Node, rule: Rule) -> str:
    """Why this very node has no int8 form though its operator has one; "" where it has."""
    if any(value.dtype != FLOAT for value in [*_data(node, rule), *node.outputs]):
        return "does not compute in float32"
    if rule.weight is not None and (reason := _weight_obstacle(node, node.inputs[rule.weight], rule)):
        return reason
    bias = _at(node, rule.bias)
    if bias is not None and constant(bias) is None:
        return "its bias is computed, not constant"
    return ""


def _weight_obstacle(node: ir.Node, value: ir.Value | None, rule: Rule) -> str:
    weight = constant(value)
    if weight is None:
        return "its weights are computed, not constant"
    if weight.dtype != FLOAT or len(weight.shape) <= rule.axis or weight.size == 0:
        return "its weights have no form that int8 kernels take"
    if node.op_type == "MatMul" and len(weight.shape) != 2:
        return "its weights are a stack of matrices"
    if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
        return "a grouped transposed convolution has no scale a channel"
    return ""


def _data(node: ir.Node, rule: Rule) -> list[ir.Value]:
    indices = range(len(node.inputs)) if rule.data is None else rule.data
    return [value for index in indices if (value := _at(node, index)) is not None]


def _at(node: ir.Node, index: int | None) -> ir.Value | None:
    return node.inputs[index] if index is not None and index < len(node.inputs) else None


def _only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`, once, in the same graph; None where others need it too."""
    uses = list(value.uses())
    if value.is_graph_output() or len(uses) != 1 or uses[0].node.graph is not value.graph:
        return None
    return uses[0].node


def _take_bias(nodes: list[ir.Node]) -> ir.Value | None:
    """Let the Add of one constant a channel behind a matrix product join its unit; returns that constant."""
    product = nodes[-1].outputs[0]
    add = _only_reader(product)
    if add is None or add.op_type != "Add":
        return None
    bias = add.inputs[1] if add.inputs[0] is product else add.inputs[0]
    tensor = constant(bias)
    weight = constant(nodes[-1].inputs[1])
    if tensor is None or weight is None or tensor.dtype != FLOAT or tuple(tensor.shape) != (weight.shape[-1],):
        return None
    nodes.append(add)
    return bias


def _take_activation(nodes: list[ir.Node]) -> None:
    after = _only_reader(nodes[-1].outputs[0])
    if after is not None and after.op_type in ACTIVATIONS and after.inputs[0] is nodes[-1].outputs[0]:
        if after.op_type == "Clip" and not all(constant(bound) for bound in after.inputs[1:] if bound is not None):
            return
        nodes.append(after)


def clip_bounds(node: ir.Node) -> tuple[float, float]:
    """The range that a Relu, or a Clip with constant bounds, lets through."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    bounds = [constant(_at(node, index)) for index in (1, 2)]
    low, high = (None if bound is None else float(bound.numpy().reshape(())) for bound in bounds)
    return (-float("inf") if low is None else low), (float("inf") if high is None else high)
