"""Scales and shifts by constants in a row, brought to one Mul and one Add."""

import numpy as np
import onnx_ir as ir

from converters.graph.canonical.edit import (
    Array,
    add_constant,
    add_node,
    constant,
    is_op,
    nodes_of,
    producer,
    settled,
    sole_reader,
    stem_of,
    take_place,
)

_WIDE = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def merge_affine(model: ir.Model) -> bool:
    """Write x - c and x / c by constants as Add and Mul, and merge such operators in a row: Mul first, then Add.

    Requires: `constants_right`, types; the activations recognised. Ensures: of float32 and float64, no Sub or Div by a
    finite constant with a finite inverse; no Mul of Mul, Add of Add or Mul of Add by constants where the first has one
    reader and the merged constant is no larger than both were.
    """
    changed = False
    for node in nodes_of(model, "Mul", "Div", "Add", "Sub"):
        array = constant(node.inputs[1])
        if array is None or node.outputs[0].dtype not in _WIDE or node.inputs[0] is None:
            continue
        plain = _plain(node, array)
        if plain is not None:
            changed |= _merge(model.graph, node, *plain)
    return settled(model.graph, changed=changed)


def _plain(node: ir.Node, array: Array) -> tuple[str, Array] | None:
    """The operator as a Mul or Add by a constant."""
    if node.op_type in ("Mul", "Add"):
        return node.op_type, array
    if node.op_type == "Sub":
        return "Add", -array
    with np.errstate(divide="ignore", over="ignore"):
        inverse = (1 / array.astype(np.float64)).astype(array.dtype)
    # An inverse below the smallest normal number would have lost digits.
    lossless = np.isfinite(inverse).all() and (np.abs(inverse) >= np.finfo(array.dtype).tiny).all()
    return ("Mul", inverse) if lossless else None


def _merge(graph: ir.Graph, node: ir.Node, op_type: str, array: Array) -> bool:
    source = node.inputs[0]
    assert source is not None
    before = producer(source, "Mul", "Add")
    inner = constant(before.inputs[1]) if before is not None and sole_reader(source) is node else None
    if before is not None and inner is not None and _fits(inner, array) and before.inputs[0] is not None:
        if before.op_type == op_type:
            _write(graph, node, op_type, before.inputs[0], inner * array if op_type == "Mul" else inner + array)
            return True
        if op_type == "Mul":
            factor = add_constant(graph, array, f"{stem_of(source)}/scale")
            scaled = add_node(node, "Mul", [before.inputs[0], factor], name=before.name, stem=stem_of(source))
            _write(graph, node, "Add", scaled, inner * array)
            return True
    if is_op(node, op_type):
        return False
    _write(graph, node, op_type, source, array)
    return True


def _fits(first: Array, second: Array) -> bool:
    """Whether the two broadcast to one of their own shapes."""
    try:
        return np.broadcast_shapes(first.shape, second.shape) in (first.shape, second.shape)
    except ValueError:
        return False


def _write(graph: ir.Graph, node: ir.Node, op_type: str, source: ir.Value, array: Array) -> None:
    stem = stem_of(node.outputs[0])
    value = add_constant(graph, array, f"{stem}/{'scale' if op_type == 'Mul' else 'shift'}")
    take_place(add_node(node, op_type, [source, value]), node.outputs[0])
