"""Nodes that an older opset can express in another spelling: an input that was an attribute, an operator by its parts.

Each rule keeps the computed function; the parts of Gelu are the ones that ONNX Runtime fuses back into its own
kernel, so the older file is no slower.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from converters.write.versions import FLOOR, schema, since, type_text


class Rewrite(NamedTuple):
    """How a node of one version is said in older ones.

    Attributes:
        lowest: the oldest opset in which this node can be said so; None where it cannot.
        apply: changes the node, or puts others in its place; told the opset to be written.
    """

    lowest: Callable[[ir.Node], int | None]
    apply: Callable[[ir.Node, int], None]


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initialiser or of a Constant node; None for anything else."""
    if value is None or value.is_graph_input():
        return None
    return ir.convenience.get_const_tensor(value)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _data_fits(node: ir.Node, opset: int) -> bool:
    """Whether the first input's type is legal at `opset`."""
    old, value = schema(node.op_type, opset), node.inputs[0]
    kinds = {one.type_param_str: set(one.allowed_type_strs) for one in old.type_constraints}
    return value is not None and type_text(value) in kinds.get(old.inputs[0].type_str, set())


def _lowest_for_data(node: ir.Node) -> int | None:
    return next((opset for opset in range(FLOOR, since(node)) if _data_fits(node, opset)), None)


def _input_to_attribute(name: str, *, optional: bool) -> Rewrite:
    """Input 1, when it is constant, becomes the attribute `name` (axes, split)."""

    def lowest(node: ir.Node) -> int | None:
        value, noop = _input(node, 1), node.attributes.get("noop_with_empty_axes")
        tensor = constant(value)
        given = tensor is not None and tensor.size > 0
        if not (given or (optional and value is None)) or (noop is not None and noop.as_int()):
            return None
        return _lowest_for_data(node)

    def apply(node: ir.Node, opset: int) -> None:
        # At 13 ReduceSum, Squeeze, Unsqueeze and Split took the new form; the other reductions only at 18.
        if opset >= since(node):
            return
        tensor = constant(_input(node, 1))
        if tensor is not None:
            node.attributes[name] = ir.AttrInt64s(name, [int(entry) for entry in tensor.numpy().reshape(-1)])
            node.resize_inputs(1)

    return Rewrite(lowest, apply)


def _equal_parts(node: ir.Node) -> int | None:
    """Split with num_outputs: the same as no attribute at all, where the axis divides evenly."""
    value, axis = node.inputs[0], node.attributes.get("axis")
    if value is None or value.shape is None or "num_outputs" not in node.attributes:
        return None
    index = 0 if axis is None else axis.as_int()
    size = value.shape[index] if -len(value.shape) <= index < len(value.shape) else None
    return _lowest_for_data(node) if isinstance(size, int) and size % len(node.outputs) == 0 else None


def _drop_num_outputs(node: ir.Node, _: int) -> None:
    node.attributes.pop("num_outputs")


def _resize_fits(node: ir.Node) -> int | None:
    symmetric = _text(node, "coordinate_transformation_mode") == "half_pixel_symmetric"
    return None if symmetric else _lowest_for_data(node)


def _resize_with_all_inputs(node: ir.Node, opset: int) -> None:
    """Before 13 roi and scales may be empty but not absent."""
    if opset >= 13:
        return
    for index, name in ((1, "roi"), (2, "scales")):
        if node.inputs[index] is None:
            empty = _initializer(node, f"{node.name}_no_{name}", [])
            node.replace_input_with(index, empty)


_GRID_MODES = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}


def _grid_2d(node: ir.Node) -> int | None:
    value = node.inputs[0]
    flat = value is not None and value.shape is not None and len(value.shape) == 4
    return 16 if flat and _data_fits(node, 16) else None


def _rename_grid_mode(node: ir.Node, _: int) -> None:
    node.attributes["mode"] = ir.AttrString("mode", _GRID_MODES[_text(node, "mode") or "linear"])


def _text(node: ir.Node, name: str) -> str:
    attribute = node.attributes.get(name)
    return "" if attribute is None else attribute.as_string()


def _float32(node: ir.Node) -> int | None:
    """The parts of activations are as old as the floor; runtimes have them for float32."""
    value = node.inputs[0]
    return FLOOR if value is not None and type_text(value) == "tensor(float)" else None


def _spell_gelu(node: ir.Node, _: int) -> None:
    """X / 2 * (1 + erf(x / sqrt 2)), or with the tanh of x + 0.044715 x^3 (Hendrycks & Gimpel 2016)."""
    build = _Parts(node)
    x = node.inputs[0]
    if _text(node, "approximate") == "tanh":
        cubed = build("Mul", build("Pow", x, 3.0), 0.044715)
        inner = build("Tanh", build("Mul", build("Add", x, cubed), math.sqrt(2 / math.pi)))
        build("Mul", build("Mul", x, 0.5), build("Add", inner, 1.0))
    else:
        inner = build("Add", build("Erf", build("Div", x, math.sqrt(2))), 1.0)
        build("Mul", build("Mul", x, inner), 0.5)
    build.replace()


def _spell_hard_swish(node: ir.Node, _: int) -> None:
    """X * max(0, min(1, x / 6 + 1 / 2)): the function body that the standard gives."""
    build = _Parts(node)
    gate = build("HardSigmoid", node.inputs[0], alpha=1 / 6, beta=0.5)
    build("Mul", node.inputs[0], gate)
    build.replace()


class _Parts:
    """Builds the nodes that take the place of one."""

    def __init__(self, node: ir.Node) -> None:
        self._node = node
        self._made: list[ir.Node] = []

    def __call__(self, op_type: str, *operands: ir.Value | float | None, **attributes: float) -> ir.Value:
        name = f"{self._node.name}_{op_type.lower()}_{len(self._made)}"
        inputs = [
            _initializer(self._node, f"{name}_constant", operand) if isinstance(operand, float) else operand
            for operand in operands
        ]
        extra = [ir.AttrFloat32(key, value) for key, value in attributes.items()]
        old, output = self._node.outputs[0], ir.Value(name=f"{name}_output")
        output.type, output.shape = old.type, old.shape
        self._made.append(ir.Node("", op_type, inputs, extra, outputs=[output], name=name))
        return output

    def replace(self) -> None:
        """Put the nodes built in the old one's place; the last one gives its output."""
        old, graph = self._node, self._node.graph
        if graph is None:
            raise ValueError(f"{old.name} is in no graph")
        ir.convenience.replace_nodes_and_values(graph, old, [old], self._made, old.outputs, self._made[-1].outputs)


def _initializer(node: ir.Node, name: str, entries: float | Sequence[float]) -> ir.Value:
    """A float32 constant beside the node, in the graph that it is in."""
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise TypeError(f"{node.name} is in no graph")
    while name in graph.initializers:
        name += "_"
    array = np.asarray(entries, np.float32)
    kind, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(array.shape)
    value = ir.Value(name=name, type=kind, shape=shape, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


_REDUCTIONS: Sequence[str] = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
)
REWRITES: Mapping[tuple[str, int], Rewrite] = {
    **{(name, 18): _input_to_attribute("axes", optional=True) for name in _REDUCTIONS},
    ("ReduceSum", 13): _input_to_attribute("axes", optional=True),
    ("Squeeze", 13): _input_to_attribute("axes", optional=True),
    ("Unsqueeze", 13): _input_to_attribute("axes", optional=False),
    ("Split", 13): _input_to_attribute("split", optional=True),
    ("Split", 18): Rewrite(_equal_parts, _drop_num_outputs),
    ("Resize", 13): Rewrite(_resize_fits, _resize_with_all_inputs),
    ("GridSample", 20): Rewrite(_grid_2d, _rename_grid_mode),
    ("Gelu", 20): Rewrite(_float32, _spell_gelu),
    ("HardSwish", 14): Rewrite(_float32, _spell_hard_swish),
}
"""(operator, the version that it replaces) -> its older spelling."""
